//! vfork: the child runs on its parent's memory and stack until it execs or exits, so no Rust frame may stand between the
//! call and the program. Meanwhile every hook passes through ([`sidewire_posix::signals::in_vfork`]).

use core::ffi::c_int;

use sidewire_posix::{raw, signals};

extern "C" fn before() {
    signals::set_in_vfork(true);
}

/// In the parent: the child has its own memory now. Turns the kernel's result into libc's.
extern "C" fn after(result: isize) -> c_int {
    signals::set_in_vfork(false);
    if result < 0 {
        raw::set_errno(-result as c_int);
        return -1;
    }
    result as c_int
}

macro_rules! vfork {
    ($name:ident) => {
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// The contract of the C function.
        #[cfg(target_arch = "x86_64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "sub rsp, 8",
                "call {before}",
                "add rsp, 8",
                // The child returns over the slot of the return address; the parent keeps it in a register.
                "pop rdx",
                "mov eax, {nr}",
                "syscall",
                "push rdx",
                "test rax, rax",
                "jz 2f",
                "sub rsp, 8",
                "mov rdi, rax",
                "call {after}",
                "add rsp, 8",
                "2:",
                "ret",
                before = sym before,
                after = sym after,
                nr = const libc::SYS_vfork,
            )
        }

        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// The contract of the C function.
        #[cfg(target_arch = "aarch64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "stp x29, x30, [sp, #-16]!",
                "bl {before}",
                "ldp x29, x30, [sp], #16",
                // The link register survives the system call in both processes.
                "mov x0, #0x4111",
                "mov x1, #0",
                "mov x2, #0",
                "mov x3, #0",
                "mov x4, #0",
                "mov x8, {nr}",
                "svc #0",
                "cbz x0, 2f",
                "b {after}",
                "2:",
                "ret",
                before = sym before,
                after = sym after,
                nr = const libc::SYS_clone,
            )
        }
    };
}

vfork!(vfork);
vfork!(__vfork);
