//! Start and end of the library in a process.

use core::fmt::Write;

use sidewire_posix::{process, raw, real, stdio};

/// Runs before `main`. Allocates nothing, opens nothing, prints nothing: a program without TCP must not notice.
extern "C" fn start() {
    real::resolve();
    process::adopt_sockets();
    process::watch_forks();
    std::panic::set_hook(Box::new(report_panic));
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

/// Runs when `exit` has run the program's handlers, or `main` has returned.
extern "C" fn end() {
    if stdio::any() {
        // SAFETY: flushes every stream, as exit is about to do: those on sockets of ours must go before their connections.
        unsafe { libc::fflush(core::ptr::null_mut()) };
    }
    process::before_exit();
}

#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = end;

/// One line, by one system call; then the runtime aborts.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let mut line = Line {
        bytes: [0; 512],
        len: 0,
    };
    let _ = line.write_str("sidewire: internal error: ");
    let message = info.payload();
    let text = message
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| message.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic");
    let _ = line.write_str(text);
    if let Some(at) = info.location() {
        let _ = write!(line, " ({}:{})", at.file(), at.line());
    }
    line.bytes[line.len] = b'\n';
    raw::write_stderr(&line.bytes[..=line.len]);
}

/// A line of bounded length on the stack; what does not fit is cut off.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let room = self.bytes.len() - 1 - self.len;
        for byte in s.bytes().take(room) {
            self.bytes[self.len] = if byte == b'\n' { b' ' } else { byte };
            self.len += 1;
        }
        Ok(())
    }
}
