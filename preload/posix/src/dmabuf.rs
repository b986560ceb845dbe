//! Device memory that SCM_DEVMEM_DMABUF can name: any descriptor that can be mapped (a dma-buf, a udmabuf, a memfd).
//!
//! The kernel binds a dma-buf to a network device by netlink (`NETDEV_CMD_BIND_TX`) and lets the device read it. Here it is
//! mapped, and the packet socket reads it, as it reads every payload.

use core::ffi::c_int;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use sidewire_engine::memory::RegionKind;
use sidewire_link::fd::Fd;
use syscalls::{Sysno, syscall};

use crate::mapping::Mapping;
use crate::stack::{self, NetStack};
use crate::{process, signals, syscall};

/// Largest buffer, in bytes: offsets have 32 bits.
pub const DMABUF_MAX: u64 = u32::MAX as u64 & !4095;

/// Maps all of what `fd` refers to.
fn map(fd: c_int) -> Result<Mapping, c_int> {
    // SAFETY: no pointers. A dma-buf has its size here and nowhere else.
    let len = unsafe { syscall!(Sysno::lseek, fd, 0, libc::SEEK_END) };
    let len = len.map_err(|e| e.into_raw())?;
    if len == 0 || len as u64 > DMABUF_MAX {
        return Err(libc::EINVAL);
    }
    Mapping::new(fd, 0, len, RegionKind::DmaBuf).map_err(|e| e.into_raw())
}

/// The stack of the calling thread's network namespace.
fn here() -> Result<&'static NetStack, c_int> {
    if !process::enabled() {
        return Err(libc::EOPNOTSUPP);
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    let probe = Fd::from_raw(syscall::socket(libc::AF_INET, kind, 0).map_err(|e| e.into_raw())?);
    stack::for_socket(probe.as_raw_fd()).map_err(|_| libc::EOPNOTSUPP)
}

/// Registers what `fd` refers to for sends through the device `ifindex` (0: any) of the calling thread's network namespace.
/// Answers the id for SCM_DEVMEM_DMABUF. The descriptor may be closed afterwards.
///
/// # Errors
/// EINVAL for an empty or too large buffer, ENODEV when there is no such device, ENOBUFS when there are too many, EOPNOTSUPP
/// when the engine does not work here; and what lseek(2) and mmap(2) say.
pub fn bind(fd: c_int, ifindex: u32) -> Result<u32, c_int> {
    let _inside = signals::enter();
    let stack = here()?;
    let mapping = map(fd)?;
    stack.with(|inner| {
        if ifindex != 0 && !inner.net.has_device(ifindex) {
            return Err(libc::ENODEV);
        }
        let id = inner.engine.bind_dmabuf(Arc::new(mapping), ifindex);
        id.map_err(|e| e.errno().0)
    })
}

/// Forgets a registration. What is on its way keeps the memory mapped.
///
/// # Errors
/// ENOENT when there is none of that id in the calling thread's network namespace, EOPNOTSUPP as [`bind`].
pub fn unbind(id: u32) -> Result<(), c_int> {
    let _inside = signals::enter();
    if here()?.with(|inner| inner.engine.unbind_dmabuf(id)) {
        Ok(())
    } else {
        Err(libc::ENOENT)
    }
}
