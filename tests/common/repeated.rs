//! What another program does all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::dice::Dice;

/// A thread that repeats an action until this is dropped.
#[derive(Debug)]
pub struct Repeated {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Repeated {
    pub fn new(mut work: impl FnMut(&mut Dice) + Send + 'static) -> Repeated {
        let over = Arc::new(AtomicBool::new(false));
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let thread = {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    work(&mut dice);
                }
            })
        };
        Repeated { over, thread: Some(thread) }
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let result = self.thread.take().expect("not yet joined").join();
        if !thread::panicking() {
            result.expect("the thread");
        }
    }
}
