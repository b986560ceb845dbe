//! exec: glibc's functions call each other inside, so each has its own hook.

use core::ffi::{c_char, c_int};

use sidewire_posix::exec::{Image, Strings, environment};

use crate::calls;

/// The exec functions: `name_call(args)` prepares the connections for what is executed, in its environment, then makes the
/// call; when it comes back, it failed.
macro_rules! exec_calls {
    ($( $call:ident = $name:ident ( $($arg:ident: $ty:ty),* ): $image:expr, $argv:ident, $envp:expr; )*) => {
        $( pub(crate) unsafe fn $call( $($arg: $ty),* ) -> c_int {
            // SAFETY: the program's call.
            unsafe {
                calls::before_exec($image, $argv, $envp);
                let failed = calls::$name( $($arg),* );
                calls::exec_failed();
                failed
            }
        } )*
    };
}

exec_calls! {
    execve_call = execve(path: *const c_char, argv: Strings, envp: Strings): Image::path(path), argv, envp;
    execv_call = execv(path: *const c_char, argv: Strings): Image::path(path), argv, environment();
    execvp_call = execvp(file: *const c_char, argv: Strings): Image::Named(file), argv, environment();
    execvpe_call = execvpe(file: *const c_char, argv: Strings, envp: Strings): Image::Named(file), argv, envp;
    fexecve_call = fexecve(fd: c_int, argv: Strings, envp: Strings): Image::open(fd), argv, envp;
    execveat_call = execveat(dir: c_int, path: *const c_char, argv: Strings, envp: Strings, flags: c_int):
        Image::At { dir, path, flags }, argv, envp;
}

hooks! {
    execve: (path: *const c_char, argv: Strings, envp: Strings) -> c_int = super::execve_call;
    execv: (path: *const c_char, argv: Strings) -> c_int = super::execv_call;
    execvp: (file: *const c_char, argv: Strings) -> c_int = super::execvp_call;
    execvpe: (file: *const c_char, argv: Strings, envp: Strings) -> c_int = super::execvpe_call;
    fexecve: (fd: c_int, argv: Strings, envp: Strings) -> c_int = super::fexecve_call;
    execveat: (dir: c_int, path: *const c_char, argv: Strings, envp: Strings, flags: c_int) -> c_int
        = super::execveat_call;
}

unsafe extern "C" fn execl_argv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the program's call.
    unsafe { execv_call(path, argv) }
}

unsafe extern "C" fn execlp_argv(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the program's call.
    unsafe { execvp_call(file, argv) }
}

unsafe extern "C" fn execle_argv(path: *const c_char, argv: Strings) -> c_int {
    let mut end = argv;
    // SAFETY: the list ends with a null pointer, and the environment follows it.
    unsafe {
        while !(*end).is_null() {
            end = end.add(1);
        }
        execve_call(path, argv, *end.add(1) as Strings)
    }
}

/// The list forms take any number of arguments. Laid down in front of those that came on the stack, the ones that came in
/// registers make the whole list one array.
macro_rules! list_form {
    ($name:ident, $argv:path) => {
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// The contract of the C function.
        #[cfg(target_arch = "x86_64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "pop rax",
                "push r9",
                "push r8",
                "push rcx",
                "push rdx",
                "push rsi",
                "mov rsi, rsp",
                "push rax",
                "call {call}",
                "pop rdx",
                "add rsp, 40",
                "push rdx",
                "ret",
                call = sym $argv,
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
                "sub sp, sp, #64",
                "str x1, [sp, #8]",
                "stp x2, x3, [sp, #16]",
                "stp x4, x5, [sp, #32]",
                "stp x6, x7, [sp, #48]",
                "add x1, sp, #8",
                "stp x29, x30, [sp, #-16]!",
                "bl {call}",
                "ldp x29, x30, [sp], #16",
                "add sp, sp, #64",
                "ret",
                call = sym $argv,
            )
        }
    };
}

list_form!(execl, execl_argv);
list_form!(execlp, execlp_argv);
list_form!(execle, execle_argv);
