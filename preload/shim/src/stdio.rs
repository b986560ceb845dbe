//! stdio on sockets: glibc's streams call no hook, so a stream on a descriptor of ours is made differently.

use core::ffi::{c_char, c_int, c_void};

use libc::FILE;

use crate::calls;

hooks! {
    fdopen _IO_fdopen: (fd: c_int, mode: *const c_char) -> *mut FILE = calls::fdopen;
    fclose _IO_fclose: (stream: *mut FILE) -> c_int = calls::fclose;
    fcloseall: () -> c_int = calls::fcloseall;
    fileno fileno_unlocked: (stream: *mut FILE) -> c_int = calls::fileno;
    vdprintf: (fd: c_int, format: *const c_char, args: *mut c_void) -> c_int = calls::vdprintf;
    __vdprintf_chk: (fd: c_int, flag: c_int, format: *const c_char, args: *mut c_void) -> c_int
        = calls::__vdprintf_chk;
    freopen: (path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE = calls::freopen;
    freopen64: (path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE
        = calls::freopen64;
}

unsafe extern "C" fn dprintf_args(fd: c_int, format: *const c_char, args: *mut c_void) -> c_int {
    // SAFETY: the program's call.
    unsafe { calls::vdprintf(fd, format, args) }
}

unsafe extern "C" fn dprintf_chk_args(
    fd: c_int,
    flag: c_int,
    format: *const c_char,
    args: *mut c_void,
) -> c_int {
    // SAFETY: the program's call.
    unsafe { calls::__vdprintf_chk(fd, flag, format, args) }
}

/// The variadic forms: lays down the argument registers, and a `va_list` over them and the stack, as a C function's prologue
/// does (System V ABI, figure 3.33); `$named` bytes of the integer registers are named arguments.
#[cfg(target_arch = "x86_64")]
macro_rules! variadic {
    ($name:ident, $named:literal, $list:literal, $args:path) => {
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// The contract of the C function.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "sub rsp, 216",
                "mov [rsp + 48], rdx",
                "mov [rsp + 56], rcx",
                "mov [rsp + 64], r8",
                "mov [rsp + 72], r9",
                "test al, al",
                "je 2f",
                "movaps [rsp + 80], xmm0",
                "movaps [rsp + 96], xmm1",
                "movaps [rsp + 112], xmm2",
                "movaps [rsp + 128], xmm3",
                "movaps [rsp + 144], xmm4",
                "movaps [rsp + 160], xmm5",
                "movaps [rsp + 176], xmm6",
                "movaps [rsp + 192], xmm7",
                "2:",
                "mov dword ptr [rsp], {named}",
                "mov dword ptr [rsp + 4], 48",
                "lea rax, [rsp + 224]",
                "mov [rsp + 8], rax",
                "lea rax, [rsp + 32]",
                "mov [rsp + 16], rax",
                concat!("mov ", $list, ", rsp"),
                "call {args}",
                "add rsp, 216",
                "ret",
                named = const $named,
                args = sym $args,
            )
        }
    };
}

#[cfg(target_arch = "x86_64")]
variadic!(dprintf, 16, "rdx", dprintf_args);
#[cfg(target_arch = "x86_64")]
variadic!(__dprintf_chk, 24, "rcx", dprintf_chk_args);
