//! From a script's text to [`Script`].

use sidewire_uapi::Errno;
use sidewire_wire::icmp::{IcmpErrorKind, v4_unreachable};
use sidewire_wire::tcp::{TcpFlags, TcpOptions};
use sidewire_wire::tcp_options::{FastOpen, SackBlock};

use super::assertion;
use super::ast::{Action, Call, CallResult, Event, Expr, IcmpSpec, PacketSpec, Script, Time};
use super::constants;

/// What is wrong with a script's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: usize,
    /// What was expected there.
    pub message: String,
}

type Parsed<T> = Result<T, String>;

/// Parses a script.
///
/// # Errors
/// The first line that is not understood.
pub fn parse(text: &str) -> Result<Script, SyntaxError> {
    let mut cursor = Cursor { text, at: 0 };
    let mut script = Script::default();
    loop {
        cursor.skip_space();
        if cursor.rest().is_empty() {
            return Ok(script);
        }
        let line = cursor.line();
        let message = match item(&mut cursor, line, &mut script) {
            Ok(()) => continue,
            Err(message) => message,
        };
        return Err(SyntaxError {
            line: cursor.line(),
            message,
        });
    }
}

fn item(cursor: &mut Cursor<'_>, line: usize, script: &mut Script) -> Parsed<()> {
    if cursor.eat("--") {
        let option = cursor.until("\n")?;
        let (name, value) = option.trim().split_once('=').unwrap_or((option.trim(), ""));
        script.options.push((line, name.into(), value.into()));
        return Ok(());
    }
    if cursor.eat("`") {
        let commands = cursor.until("`")?;
        for (n, command) in commands.lines().enumerate() {
            for setting in command.split(';').map(str::trim).filter(|s| !s.is_empty()) {
                let (name, value) = sysctl(setting)?;
                script.sysctls.push((line + n, name, value));
            }
        }
        return Ok(());
    }
    let start = cursor.at;
    let (time, until) = time(cursor)?;
    let action = action(cursor)?;
    let text = cursor.text[start..cursor.at]
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    script.events.push(Event {
        line,
        text,
        time,
        until,
        action,
    });
    Ok(())
}

fn sysctl(command: &str) -> Parsed<(String, String)> {
    let setting = command
        .strip_prefix("sysctl")
        .map(|s| s.trim_start().trim_start_matches("-q"));
    let setting = setting.or_else(|| command.starts_with("net.").then_some(command));
    let (name, value) = setting
        .and_then(|s| s.split_once('='))
        .ok_or_else(|| format!("only `sysctl -q net.ipv4.NAME=VALUE` is known, not `{command}`"))?;
    let name = name
        .trim()
        .trim_start_matches("net.ipv4.")
        .trim_start_matches("net.core.");
    Ok((name.into(), value.trim().trim_matches('"').into()))
}

fn time(cursor: &mut Cursor<'_>) -> Parsed<(Time, Option<u64>)> {
    if cursor.eat("*") {
        return Ok((Time::Any, None));
    }
    let relative = cursor.eat("+");
    let from = cursor.microseconds()?;
    if cursor.eat("~") {
        cursor.eat("+");
        let to = cursor.microseconds()?;
        let time = if relative {
            Time::RelativeRange(from, to)
        } else {
            Time::AbsoluteRange(from, to)
        };
        return Ok((time, None));
    }
    let until = if cursor.eat("...") {
        Some(cursor.microseconds()?)
    } else {
        None
    };
    Ok((
        if relative {
            Time::Relative(from)
        } else {
            Time::Absolute(from)
        },
        until,
    ))
}

fn action(cursor: &mut Cursor<'_>) -> Parsed<Action> {
    cursor.skip_space();
    if cursor.eat("%{") {
        let body = cursor.until("}%")?;
        return assertions(body).map(Action::Assert);
    }
    if cursor.eat("<") {
        cursor.skip_space();
        if cursor.eat("icmp") {
            return icmp(cursor).map(Action::InjectIcmp);
        }
        return packet(cursor).map(Action::Inject);
    }
    if cursor.eat(">") {
        return packet(cursor).map(Action::Expect);
    }
    call(cursor).map(Action::Call)
}

fn assertions(body: &str) -> Parsed<Vec<(String, assertion::Expr)>> {
    let lines = body.lines().flat_map(|line| line.split(';')).map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let text = line.strip_prefix("assert ").ok_or("`assert` expected")?;
            // A message after a comma is for the reader.
            let text = text.split_once(',').map_or(text, |(text, _)| text);
            Ok((text.trim().to_owned(), assertion::Expr::parse(text)?))
        })
        .collect()
}

fn packet(cursor: &mut Cursor<'_>) -> Parsed<PacketSpec> {
    cursor.skip_space();
    let word = cursor.take_while(|c| !c.is_whitespace());
    let any_psh = word.contains('p');
    let flags = flags(&word.replace('p', ""))?;
    let seq = cursor.number()?;
    cursor.expect(":")?;
    let end = cursor.number()?;
    cursor.expect("(")?;
    let len = cursor.number()?;
    cursor.expect(")")?;
    if end.wrapping_sub(seq) != len {
        return Err(format!("{seq}:{end} is not {len} bytes"));
    }
    let ack = cursor.keyword("ack").then(|| cursor.number()).transpose()?;
    if ack.is_some() != flags.contains(TcpFlags::ACK) {
        return Err("the flag `.` and `ack` go together".into());
    }
    let window = cursor.keyword("win").then(|| cursor.number()).transpose()?;
    let urg = cursor.keyword("urg").then(|| cursor.number()).transpose()?;
    let half = |n: u32| u16::try_from(n).map_err(|_| format!("{n} does not fit into 16 bits"));
    cursor.skip_blanks();
    let options = if cursor.eat("<") {
        options(cursor)?
    } else {
        Some(TcpOptions::default())
    };
    let (window, urg) = (window.map(half).transpose()?, urg.map(half).transpose()?);
    Ok(PacketSpec {
        flags,
        any_psh,
        seq,
        len,
        ack,
        window,
        urg,
        options,
    })
}

fn flags(word: &str) -> Parsed<TcpFlags> {
    let mut flags = TcpFlags::empty();
    for letter in word.chars() {
        flags |= match letter {
            'F' => TcpFlags::FIN,
            'S' => TcpFlags::SYN,
            'R' => TcpFlags::RST,
            'P' => TcpFlags::PSH,
            '.' => TcpFlags::ACK,
            'U' => TcpFlags::URG,
            'E' => TcpFlags::ECE,
            'W' => TcpFlags::CWR,
            '-' => TcpFlags::empty(),
            _ => return Err(format!("`{word}` are not control bits")),
        };
    }
    if word.is_empty() {
        Err("control bits expected".into())
    } else {
        Ok(flags)
    }
}

/// The options after `<`, `None` for `...`.
fn options(cursor: &mut Cursor<'_>) -> Parsed<Option<TcpOptions>> {
    let mut out = TcpOptions::default();
    cursor.skip_space();
    if cursor.eat("...") {
        cursor.expect(">")?;
        return Ok(None);
    }
    while !cursor.eat(">") {
        match cursor.word() {
            "nop" | "eol" => {}
            "mss" => out.mss = Some(cursor.number()? as u16),
            "wscale" => out.wscale = Some(cursor.number()? as u8),
            "sackOK" => out.sack_permitted = true,
            "TS" => {
                cursor.expect_word("val")?;
                let tsval = cursor.number()?;
                cursor.expect_word("ecr")?;
                out.timestamps = Some((tsval, cursor.number()?));
            }
            "sack" => {
                while cursor.sees_digit() {
                    let left = cursor.number()?;
                    cursor.expect(":")?;
                    let block: SackBlock = (left, cursor.number()?);
                    if !out.sack.push(block) {
                        return Err("more SACK blocks than a segment holds".into());
                    }
                }
            }
            "FO" => {
                let hex = cursor.word();
                out.fastopen = if hex.is_empty() {
                    Some(FastOpen::request(false))
                } else {
                    let cookie = bytes_of_hex(hex).and_then(|c| FastOpen::with_cookie(&c, false));
                    Some(cookie.ok_or_else(|| format!("`{hex}` is not a cookie"))?)
                };
            }
            other => return Err(format!("unknown TCP option `{other}`")),
        }
        cursor.skip_space();
        cursor.eat(",");
        cursor.skip_space();
    }
    Ok(Some(out))
}

fn bytes_of_hex(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |c: u8| char::from(c).to_digit(16);
    let bytes = pairs
        .iter()
        .map(|[a, b]| Some((digit(*a)? << 4 | digit(*b)?) as u8));
    if rest.is_empty() {
        bytes.collect()
    } else {
        None
    }
}

/// `unreachable frag_needed mtu 1300 [1:1001(1000)]`.
fn icmp(cursor: &mut Cursor<'_>) -> Parsed<IcmpSpec> {
    cursor.expect_word("unreachable")?;
    let kind = match cursor.word() {
        "frag_needed" => {
            cursor.expect_word("mtu")?;
            IcmpErrorKind::PacketTooBig(cursor.number()?)
        }
        "net_unreachable" => IcmpErrorKind::Unreachable(v4_unreachable::NET),
        "host_unreachable" => IcmpErrorKind::Unreachable(v4_unreachable::HOST),
        "protocol_unreachable" => IcmpErrorKind::Unreachable(v4_unreachable::PROTOCOL),
        "port_unreachable" => IcmpErrorKind::Unreachable(v4_unreachable::PORT),
        other => return Err(format!("unknown ICMP code `{other}`")),
    };
    cursor.expect("[")?;
    let seq = cursor.number()?;
    cursor.until("]")?;
    Ok(IcmpSpec { kind, seq })
}

fn call(cursor: &mut Cursor<'_>) -> Parsed<Call> {
    let name = cursor.word().to_owned();
    if name.is_empty() {
        return Err("a packet, a system call or an assertion expected".into());
    }
    cursor.expect("(")?;
    let args = list(cursor, ")")?;
    cursor.expect("=")?;
    cursor.skip_blanks();
    let result = if cursor.eat("?") {
        CallResult::Any
    } else {
        match integer(cursor)? {
            -1 => {
                let name = cursor.word();
                let errno = Errno::from_name(name);
                CallResult::Error(errno.ok_or_else(|| format!("unknown errno `{name}`"))?)
            }
            value => CallResult::Value(value),
        }
    };
    cursor.skip_blanks();
    if cursor.eat("(") {
        cursor.until(")")?;
    }
    Ok(Call { name, args, result })
}

fn list(cursor: &mut Cursor<'_>, end: &str) -> Parsed<Vec<Expr>> {
    let mut out = Vec::new();
    loop {
        cursor.skip_space();
        if cursor.eat(end) {
            return Ok(out);
        }
        out.push(expr(cursor)?);
        cursor.skip_space();
        if !cursor.eat(",") {
            cursor.expect(end)?;
            return Ok(out);
        }
    }
}

fn expr(cursor: &mut Cursor<'_>) -> Parsed<Expr> {
    cursor.skip_space();
    if cursor.eat("...") {
        return Ok(Expr::Ellipsis);
    }
    if cursor.eat("\"") {
        return Ok(Expr::Text(cursor.until("\"")?.to_owned()));
    }
    if cursor.eat("[") {
        return list(cursor, "]").map(Expr::List);
    }
    if cursor.eat("{") {
        return fields(cursor).map(Expr::Struct);
    }
    let mut value = integer(cursor)?;
    cursor.skip_space();
    while cursor.eat("|") {
        value |= integer(cursor)?;
        cursor.skip_space();
    }
    Ok(Expr::Int(value))
}

fn fields(cursor: &mut Cursor<'_>) -> Parsed<Vec<(String, Expr)>> {
    let mut out = Vec::new();
    loop {
        cursor.skip_space();
        if cursor.eat("}") {
            return Ok(out);
        }
        let start = cursor.at;
        let mut name = cursor.word().to_owned();
        // `msg_iov(1)=` gives a length that the list shows itself.
        if !name.is_empty() && cursor.eat("(") {
            cursor.until(")")?;
        }
        cursor.skip_space();
        if name.is_empty() || !cursor.eat("=") {
            cursor.at = start;
            name = String::new();
        }
        let value = expr(cursor)?;
        out.push((name, value));
        cursor.skip_space();
        if !cursor.eat(",") {
            cursor.expect("}")?;
            return Ok(out);
        }
    }
}

/// A number or a constant.
fn integer(cursor: &mut Cursor<'_>) -> Parsed<i64> {
    cursor.skip_space();
    let negative = cursor.eat("-");
    let word = cursor.word();
    let value = if let Some(hex) = word.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()
    } else if word.starts_with(|c: char| c.is_ascii_digit()) {
        word.parse().ok()
    } else {
        constants::lookup(word)
    };
    let value = value.ok_or_else(|| format!("unknown constant or number `{word}`"))?;
    Ok(if negative { -value } else { value })
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn line(&self) -> usize {
        1 + self.text[..self.at].matches('\n').count()
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn skip_blanks(&mut self) {
        self.take_while(|c| c == ' ' || c == '\t');
    }

    /// Skips white space and comments: `//` and `#` to the end of the line, `/* */`.
    fn skip_space(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            let rest = self.rest();
            if rest.starts_with("//") || rest.starts_with('#') {
                self.take_while(|c| c != '\n');
            } else if let Some(comment) = rest.strip_prefix("/*") {
                self.at += 2 + comment.find("*/").map_or(comment.len(), |n| n + 2);
            } else {
                return;
            }
        }
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn expect(&mut self, wanted: &str) -> Parsed<()> {
        self.skip_blanks();
        if self.eat(wanted) {
            return Ok(());
        }
        let found: String = self.rest().chars().take(20).collect();
        Err(format!(
            "`{wanted}` expected before `{}`",
            found.escape_default()
        ))
    }

    /// The text before `end`, which is skipped.
    fn until(&mut self, end: &str) -> Parsed<&'a str> {
        let rest = self.rest();
        let len = rest
            .find(end)
            .ok_or_else(|| format!("`{}` is missing", end.escape_default()))?;
        self.at += len + end.len();
        Ok(&rest[..len])
    }

    fn word(&mut self) -> &'a str {
        self.skip_blanks();
        self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    fn expect_word(&mut self, wanted: &str) -> Parsed<()> {
        match self.word() {
            word if word == wanted => Ok(()),
            word => Err(format!("`{wanted}` expected, not `{word}`")),
        }
    }

    /// Skips `wanted` when it stands here as a word, on this line.
    fn keyword(&mut self, wanted: &str) -> bool {
        self.skip_blanks();
        let start = self.at;
        let found = self.word() == wanted;
        if !found {
            self.at = start;
        }
        found
    }

    fn sees_digit(&mut self) -> bool {
        self.skip_blanks();
        self.rest().starts_with(|c: char| c.is_ascii_digit())
    }

    fn number(&mut self) -> Parsed<u32> {
        self.skip_blanks();
        let digits = self.take_while(|c| c.is_ascii_digit());
        digits
            .parse()
            .map_err(|_| format!("a number below 2^32 expected, not `{digits}`"))
    }

    /// Seconds with up to six decimals, as microseconds.
    fn microseconds(&mut self) -> Parsed<u64> {
        let whole = self.take_while(|c| c.is_ascii_digit());
        let after_dot = self.rest().strip_prefix('.');
        let has_decimals =
            after_dot.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let mut decimals = "";
        if has_decimals {
            self.at += 1;
            decimals = self.take_while(|c| c.is_ascii_digit());
        }
        if whole.is_empty() && decimals.is_empty() || decimals.len() > 6 {
            return Err("a time in seconds with up to six decimals expected".into());
        }
        let padded = format!("{whole}{decimals:0<6}");
        padded
            .parse()
            .map_err(|_| format!("`{whole}` seconds is too long"))
    }
}

#[cfg(test)]
mod tests;
