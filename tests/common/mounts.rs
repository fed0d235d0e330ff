//! Mounts, and filesystems that hang: FUSE, in which a process that looks up a name cannot be frozen or killed, and
//! ext4, in which a process that writes cannot be killed.
//!
//! For `isolated` tests: the mounts are in the mount namespace of the test alone. The exception is the ext4: it is
//! mounted in no namespace, and the end of a PID namespace would wait for it.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::sandbox::unique_name;
use super::{layout, sys};

pub fn try_mount(from: &Path, on: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let c = |bytes: &[u8]| CString::new(bytes).expect("no NUL");
    let (from, on) = (c(from.as_os_str().as_bytes()), c(on.as_os_str().as_bytes()));
    let (kind, data) = (c(kind.as_bytes()), c(data.as_bytes()));
    // SAFETY: terminated strings, all of them.
    let result =
        unsafe { libc::mount(from.as_ptr(), on.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[track_caller]
pub fn mount(from: &Path, on: &Path, kind: &str, flags: libc::c_ulong, data: &str) {
    try_mount(from, on, kind, flags, data).unwrap_or_else(|error| panic!("mount: {error}"));
}

#[track_caller]
pub fn unmount(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: a terminated string.
    let result = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    assert_eq!(result, 0, "umount: {}", std::io::Error::last_os_error());
}

/// A FUSE filesystem whose server answers only the first request, which sets it up. A process that looks up a
/// name in it sleeps where neither a freeze nor a signal reaches it, until this is dropped.
#[derive(Debug)]
pub struct HungFilesystem {
    pub dir: PathBuf,
    server: fs::File,
}

impl HungFilesystem {
    pub fn new() -> HungFilesystem {
        let dir = std::env::temp_dir().join(unique_name("hung"));
        fs::create_dir(&dir).expect("mkdir");
        let server = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open("/dev/fuse")
            .expect("/dev/fuse");
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Path::new("hung"), &dir, "fuse", libc::MS_NOSUID | libc::MS_NODEV, &data);
        let hung = HungFilesystem { dir, server };
        // fuse_in_header: len, opcode, unique, ...; FUSE_INIT is 26; its body: major, minor, ...
        let request = hung.request();
        assert_eq!(request[4..8], 26_u32.to_ne_bytes(), "FUSE_INIT");
        let mut answer = vec![0; 16 + 64];
        let length = u32::try_from(answer.len()).expect("short");
        answer[0..4].copy_from_slice(&length.to_ne_bytes());
        answer[8..16].copy_from_slice(&request[8..16]);
        // fuse_init_out: the protocol as offered, the rest zero, but for the size of writes and
        // FUSE_PARALLEL_DIROPS: without it one lookup waits for another.
        answer[16..24].copy_from_slice(&request[40..48]);
        answer[28..32].copy_from_slice(&(1_u32 << 18).to_ne_bytes());
        answer[36..40].copy_from_slice(&4096_u32.to_ne_bytes());
        (&hung.server).write_all(&answer).expect("FUSE_INIT");
        hung
    }

    /// Takes a request, which from then on cannot be interrupted.
    pub fn request(&self) -> Vec<u8> {
        let mut request = vec![0; 256 * 1024];
        let n = (&self.server).read(&mut request).expect("a request");
        request.truncate(n);
        request
    }
}

impl Drop for HungFilesystem {
    fn drop(&mut self) {
        unmount(&self.dir);
        let _ = fs::remove_dir(&self.dir);
        // Closing the server's descriptor, which follows, ends every request.
    }
}

/// Need: FUSE.
pub fn fuse() -> Result<(), String> {
    match fs::File::open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("/dev/fuse: {error}")),
    }
}

/// How long a [`FrozenFilesystem`] lasts, even if the test is killed.
const FREEZE_LIMIT_MS: i32 = 300_000;

/// An ext4 filesystem in a file, frozen by FIFREEZE. A process that writes to it sleeps where no signal reaches it,
/// until this is dropped.
///
/// Nothing of it has a name: the file is unlinked, the mount is in no namespace, the loop device is released with it.
/// Only the freeze could be left behind. So a process of its own, which outlives a panic or a kill of the test
/// program, holds the filesystem as well, and thaws it when the other end of a pipe is closed.
#[derive(Debug)]
pub struct FrozenFilesystem {
    file: fs::File,
    keeper: i32,
    line: Option<OwnedFd>,
}

impl FrozenFilesystem {
    pub fn new() -> FrozenFilesystem {
        FrozenFilesystem::try_new().unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn try_new() -> Result<FrozenFilesystem, String> {
        let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let path = std::env::temp_dir().join(unique_name("filesystem"));
        let image = fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|image| image.set_len(16 << 20).map(|()| image))
            .map_err(failed("an image"))?;
        // -F: a regular file.
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&path).output();
        fs::remove_file(&path).expect("unlink");
        let made = made.map_err(failed("mkfs.ext4"))?;
        if !made.status.success() {
            return Err(format!("mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let device = sys::loop_device(&image).map_err(failed("a loop device"))?;
        let root = sys::mount_nowhere(c"ext4", &device.path).map_err(failed("ext4"))?;
        // The mount holds the device from here on.
        drop(device);
        let file = sys::create_in(&root, c"file").map_err(failed("a file on ext4"))?;
        let (end, line) = sys::pipe().map_err(failed("pipe"))?;
        let (end_fd, fd) = (end.as_raw_fd(), file.as_raw_fd());
        let keeper = sys::fork();
        if keeper == 0 {
            // A Ctrl-C that ends the test program must not end this process.
            sys::setsid();
            sys::close_all_but(&[end_fd, fd]);
            sys::readable(end_fd, FREEZE_LIMIT_MS);
            sys::thaw_filesystem(fd);
            sys::exit(0)
        }
        if keeper < 0 {
            return Err(failed("fork")(io::Error::last_os_error()));
        }
        let filesystem = FrozenFilesystem { file: file.into(), keeper, line: Some(line) };
        if sys::freeze_filesystem(filesystem.fd()) {
            Ok(filesystem)
        } else {
            Err(failed("FIFREEZE")(io::Error::last_os_error()))
        }
    }

    /// The file to write to.
    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

impl Drop for FrozenFilesystem {
    fn drop(&mut self) {
        self.line = None;
        let _ = sys::wait(self.keeper, 0);
    }
}

/// Need: what a [`FrozenFilesystem`] is made of.
pub fn frozen_filesystem() -> Result<(), String> {
    layout::namespaces().and_then(|()| FrozenFilesystem::try_new().map(drop))
}
