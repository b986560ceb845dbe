//! What a script says, line by line.

use sidewire_uapi::Errno;
use sidewire_wire::icmp::IcmpErrorKind;
use sidewire_wire::tcp::{TcpFlags, TcpOptions};

/// A parsed script.
#[derive(Debug, Default)]
pub struct Script {
    /// `--name=value` lines.
    pub options: Vec<(usize, String, String)>,
    /// Settings in backticks: line, name without `net.`, value.
    pub sysctls: Vec<(usize, String, String)>,
    /// The rest, in order.
    pub events: Vec<Event>,
}

/// One line with a time.
#[derive(Debug)]
pub struct Event {
    /// Line in the file, from 1.
    pub line: usize,
    /// The line's text.
    pub text: String,
    /// When.
    pub time: Time,
    /// End of a call that blocks, in the same terms as the start.
    pub until: Option<u64>,
    /// What.
    pub action: Action,
}

/// When something happens, microseconds. Relative times count from the previous event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// `*`: whenever.
    Any,
    /// `0.1`: since the start of the script.
    Absolute(u64),
    /// `+0.1`: since the previous event.
    Relative(u64),
    /// `0.1~0.2`: in this span since the start.
    AbsoluteRange(u64, u64),
    /// `+0.1~+0.2`: in this span since the previous event.
    RelativeRange(u64, u64),
}

/// What happens.
#[derive(Debug)]
pub enum Action {
    /// A system call and what it returns.
    Call(Call),
    /// `<`: a segment arrives.
    Inject(PacketSpec),
    /// `>`: a segment leaves.
    Expect(PacketSpec),
    /// `< icmp`: an error about one of our segments arrives.
    InjectIcmp(IcmpSpec),
    /// `%{ assert ... }%`.
    Assert(Vec<(String, super::assertion::Expr)>),
}

/// A system call.
#[derive(Debug)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub args: Vec<Expr>,
    /// Value and errno that it returns.
    pub result: CallResult,
}

/// What a system call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// `?`: does not matter.
    Any,
    /// A value that is not an error.
    Value(i64),
    /// `-1 ENAME`.
    Error(Errno),
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// `...`: the runner chooses.
    Ellipsis,
    /// A number, constants already resolved and or-ed.
    Int(i64),
    /// A quoted string.
    Text(String),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `{a, b}` or `{name=a, name=b}`; the names are empty in the first form.
    Struct(Vec<(String, Expr)>),
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketSpec {
    /// Control bits.
    pub flags: TcpFlags,
    /// `p`: PSH may be set or not, where it depends on how segments were put together.
    pub any_psh: bool,
    /// First sequence number, relative for what we send.
    pub seq: u32,
    /// Payload length, bytes.
    pub len: u32,
    /// Acknowledgement number, relative for what we receive.
    pub ack: Option<u32>,
    /// Unscaled window; expected segments without one are not checked for it.
    pub window: Option<u16>,
    /// Urgent pointer.
    pub urg: Option<u16>,
    /// Options, `None` for `<...>`: any.
    pub options: Option<TcpOptions>,
}

/// An ICMP error about a segment of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpSpec {
    /// What went wrong.
    pub kind: IcmpErrorKind,
    /// Relative sequence number of the segment.
    pub seq: u32,
}
