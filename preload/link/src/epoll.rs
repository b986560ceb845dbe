//! Epoll instances of our own: one descriptor that stands for several.

use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::raw;
use std::os::fd::{AsRawFd, RawFd};

/// An epoll instance at a high number, close-on-exec.
#[derive(Debug)]
pub struct Epoll(Fd);

impl Epoll {
    /// One that watches nothing yet.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Epoll, Errno> {
        move_high(raw::epoll_create()?).map(Epoll)
    }

    /// Watches a descriptor for these EPOLL* bits; `data` comes with each event.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn add(&self, fd: RawFd, events: i32, data: u64) -> Result<(), Errno> {
        let event = libc::epoll_event {
            events: events as u32,
            u64: data,
        };
        raw::epoll_ctl(self.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, event)
    }

    /// Watches a descriptor no more.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn remove(&self, fd: RawFd) -> Result<(), Errno> {
        let none = libc::epoll_event { events: 0, u64: 0 };
        raw::epoll_ctl(self.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, none)
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
