//! Shortages of memory or descriptors, which may pass.

use std::io;
use std::thread::sleep;
use std::time::Duration;

/// How long to try again where another process may try after that.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait before another try.
pub const RETRY: Duration = Duration::from_millis(50);

/// Whether an error is for a shortage of memory or descriptors.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// For how long several acts, one after the other, are still tried again in shortages.
#[derive(Debug)]
pub struct Patience(pub Duration);

impl Patience {
    /// Tries again while there is a shortage and patience. Blocks meanwhile.
    pub fn retry<T, E>(
        &mut self,
        mut act: impl FnMut() -> Result<T, E>,
        is_shortage: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        loop {
            match act() {
                Err(error) if is_shortage(&error) && !self.0.is_zero() => {
                    let wait = RETRY.min(self.0);
                    self.0 -= wait;
                    sleep(wait);
                }
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acts that fail so often and in this way before they succeed. Returns how often they were tried.
    fn tries(patience: &mut Patience, failures: u32, errno: i32) -> (u32, bool) {
        let mut tries = 0;
        let act = || {
            tries += 1;
            if tries > failures { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
        };
        let result = patience.retry(act, is_shortage);
        (tries, result.is_ok())
    }

    #[test]
    fn shortages_alone_use_the_patience_up() {
        let mut patience = Patience(3 * RETRY);
        assert_eq!(tries(&mut patience, 0, libc::EMFILE), (1, true));
        assert_eq!(tries(&mut patience, 1, libc::EACCES), (1, false));
        // Time that passes without one counts for nothing.
        sleep(4 * RETRY);
        assert_eq!(tries(&mut patience, 1, libc::EMFILE), (2, true));
        assert_eq!(tries(&mut patience, 9, libc::ENOMEM), (3, false));
        assert_eq!(tries(&mut patience, 9, libc::ENFILE), (1, false));
    }
}
