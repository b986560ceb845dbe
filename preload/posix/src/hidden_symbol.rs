//! Functions that take the place of libc's within this library only: the program, and other libraries, have libc's.

/// Gives the C name `$name` to `$function`, hidden from whoever is not linked into this library.
macro_rules! hidden_symbol {
    ($name:literal, $function:path) => {
        core::arch::global_asm!(
            ".pushsection .text",
            concat!(".globl ", $name),
            concat!(".hidden ", $name),
            concat!(".type ", $name, ", @function"),
            concat!($name, ":"),
            #[cfg(target_arch = "x86_64")]
            "jmp {function}",
            #[cfg(target_arch = "aarch64")]
            "b {function}",
            ".popsection",
            function = sym $function,
        );
    };
}

pub(crate) use hidden_symbol;
