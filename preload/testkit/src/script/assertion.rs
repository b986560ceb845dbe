//! Assertions about `tcp_info`: comparisons and integer arithmetic with C's precedence, in
//! `%{ assert tcpi_snd_cwnd == 10 and tcpi_unacked < 3 }%`.

use std::mem::offset_of;

use sidewire_uapi::tcp::TcpInfo;

use super::constants;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// A number.
    Int(i64),
    /// A field of `tcp_info`: offset and size, bytes.
    Field(usize, usize),
    /// An operation.
    Binary(Op, Box<Expr>, Box<Expr>),
}

/// An operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `or`, `||`.
    Or,
    /// `and`, `&&`.
    And,
    /// `==`.
    Eq,
    /// `!=`.
    Ne,
    /// `<=`.
    Le,
    /// `>=`.
    Ge,
    /// `<`.
    Lt,
    /// `>`.
    Gt,
    /// `&`.
    BitAnd,
    /// `>>`.
    Shr,
    /// `+`.
    Add,
    /// `-`.
    Sub,
    /// `*`.
    Mul,
    /// `/`.
    Div,
}

/// Operators by how tightly they bind, loosest first. Within a level the longer text stands first.
const LEVELS: &[&[(&str, Op)]] = &[
    &[("or", Op::Or), ("||", Op::Or)],
    &[("and", Op::And), ("&&", Op::And)],
    &[
        ("==", Op::Eq),
        ("!=", Op::Ne),
        ("<=", Op::Le),
        (">=", Op::Ge),
        ("<", Op::Lt),
        (">", Op::Gt),
    ],
    &[("&", Op::BitAnd)],
    &[(">>", Op::Shr)],
    &[("+", Op::Add), ("-", Op::Sub)],
    &[("*", Op::Mul), ("/", Op::Div)],
];

impl Expr {
    /// Parses `text`.
    ///
    /// # Errors
    /// A sentence that says what was not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.trim() };
        let expr = parser.level(0)?;
        match parser.rest {
            "" => Ok(expr),
            rest => Err(format!("cannot read `{rest}` in assertion `{text}`")),
        }
    }

    /// The value; comparisons give 1 or 0. `info` are the bytes of a `tcp_info`.
    ///
    /// # Errors
    /// A division by zero.
    pub fn eval(&self, info: &[u8]) -> Result<i64, String> {
        Ok(match self {
            Self::Int(value) => *value,
            Self::Field(offset, size) => {
                let mut bytes = [0; 8];
                bytes[..*size].copy_from_slice(&info[*offset..offset + size]);
                u64::from_le_bytes(bytes) as i64
            }
            Self::Binary(op, a, b) => {
                let (a, b) = (a.eval(info)?, b.eval(info)?);
                match op {
                    Op::Or => i64::from(a != 0 || b != 0),
                    Op::And => i64::from(a != 0 && b != 0),
                    Op::Eq => i64::from(a == b),
                    Op::Ne => i64::from(a != b),
                    Op::Le => i64::from(a <= b),
                    Op::Ge => i64::from(a >= b),
                    Op::Lt => i64::from(a < b),
                    Op::Gt => i64::from(a > b),
                    Op::BitAnd => a & b,
                    Op::Shr => a.checked_shr(b as u32).unwrap_or(0),
                    Op::Add => a.wrapping_add(b),
                    Op::Sub => a.wrapping_sub(b),
                    Op::Mul => a.wrapping_mul(b),
                    Op::Div => a.checked_div(b).ok_or("division by zero")?,
                }
            }
        })
    }

    /// The fields of the expression with their values, for messages.
    #[must_use]
    pub fn fields(&self, info: &[u8]) -> Vec<String> {
        match self {
            Self::Int(_) => Vec::new(),
            Self::Field(offset, _) => {
                let name = FIELDS
                    .iter()
                    .find(|(_, at, _)| at == offset)
                    .map_or("?", |f| f.0);
                vec![format!("{name} = {}", self.eval(info).unwrap_or_default())]
            }
            Self::Binary(_, a, b) => [a.fields(info), b.fields(info)].concat(),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn level(&mut self, level: usize) -> Result<Expr, String> {
        let Some(operators) = LEVELS.get(level) else {
            return self.atom();
        };
        let mut left = self.level(level + 1)?;
        while let Some((text, op)) = operators.iter().find(|(text, op)| self.sees(text, *op)) {
            self.skip(text.len());
            let right = self.level(level + 1)?;
            left = Expr::Binary(*op, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    /// Does `text` stand here, and not a longer operator that begins with it?
    fn sees(&self, text: &str, op: Op) -> bool {
        let Some(after) = self.rest.strip_prefix(text) else {
            return false;
        };
        match op {
            Op::BitAnd => !after.starts_with('&'),
            Op::Lt | Op::Gt => !after.starts_with(['<', '>']),
            _ => true,
        }
    }

    fn skip(&mut self, len: usize) {
        self.rest = self.rest[len..].trim_start();
    }

    fn atom(&mut self) -> Result<Expr, String> {
        if self.rest.starts_with('(') {
            self.skip(1);
            let inner = self.level(0)?;
            if !self.rest.starts_with(')') {
                return Err(format!("`)` is missing before `{}`", self.rest));
            }
            self.skip(1);
            return Ok(inner);
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let len = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let word = &self.rest[..len];
        let expr = if let Some(hex) = word.strip_prefix("0x") {
            i64::from_str_radix(hex, 16).ok().map(Expr::Int)
        } else if word.starts_with(|c: char| c.is_ascii_digit()) {
            word.parse().ok().map(Expr::Int)
        } else if let Some((_, offset, size)) = FIELDS.iter().find(|(name, ..)| *name == word) {
            Some(Expr::Field(*offset, *size))
        } else {
            constants::lookup(word).map(Expr::Int)
        };
        let expr = expr.ok_or_else(|| format!("unknown name or number `{}`", self.rest))?;
        self.skip(len);
        Ok(expr)
    }
}

const fn size_of_field<T>(_: fn(&TcpInfo) -> &T) -> usize {
    size_of::<T>()
}

macro_rules! fields {
    ($($name:ident)*) => {
        &[$((stringify!($name), offset_of!(TcpInfo, $name), size_of_field(|i| &i.$name)),)*]
    };
}

/// Name, offset and size of each field.
const FIELDS: &[(&str, usize, usize)] = fields!(
    tcpi_state tcpi_ca_state tcpi_retransmits tcpi_probes tcpi_backoff tcpi_options tcpi_wscale
    tcpi_rate_and_fastopen tcpi_rto tcpi_ato tcpi_snd_mss tcpi_rcv_mss tcpi_unacked tcpi_sacked
    tcpi_lost tcpi_retrans tcpi_fackets tcpi_last_data_sent tcpi_last_ack_sent tcpi_last_data_recv
    tcpi_last_ack_recv tcpi_pmtu tcpi_rcv_ssthresh tcpi_rtt tcpi_rttvar tcpi_snd_ssthresh
    tcpi_snd_cwnd tcpi_advmss tcpi_reordering tcpi_rcv_rtt tcpi_rcv_space tcpi_total_retrans
    tcpi_pacing_rate tcpi_max_pacing_rate tcpi_bytes_acked tcpi_bytes_received tcpi_segs_out
    tcpi_segs_in tcpi_notsent_bytes tcpi_min_rtt tcpi_data_segs_in tcpi_data_segs_out
    tcpi_delivery_rate tcpi_busy_time tcpi_rwnd_limited tcpi_sndbuf_limited tcpi_delivered
    tcpi_delivered_ce tcpi_bytes_sent tcpi_bytes_retrans tcpi_dsack_dups tcpi_reord_seen
    tcpi_rcv_ooopack tcpi_snd_wnd tcpi_rcv_wnd tcpi_rehash tcpi_total_rto
    tcpi_total_rto_recoveries tcpi_total_rto_time
);

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(text: &str) -> i64 {
        let info = TcpInfo {
            tcpi_state: 1,
            tcpi_wscale: 0xa7,
            tcpi_snd_cwnd: 10,
            tcpi_bytes_acked: 1 << 35,
            tcpi_total_rto: 3,
            ..TcpInfo::default()
        };
        Expr::parse(text).unwrap().eval(&info.to_bytes()).unwrap()
    }

    #[test]
    fn precedence_is_that_of_c() {
        assert_eq!(eval("1 + 2 * 3 == 7 and 2 > 1"), 1);
        assert_eq!(eval("(1 + 2) * 3"), 9);
        assert_eq!(eval("0 or 4 - 1 - 1 == 2"), 1);
        assert_eq!(eval("0xf0 >> 4"), 15);
    }

    #[test]
    fn fields_of_all_sizes() {
        assert_eq!(eval("tcpi_state == TCP_ESTABLISHED"), 1);
        assert_eq!(eval("tcpi_snd_cwnd"), 10);
        assert_eq!(eval("tcpi_bytes_acked / 1024"), 1 << 25);
        assert_eq!(eval("tcpi_total_rto <= 2"), 0);
        assert_eq!(eval("(tcpi_wscale & 0xf0) >> 4"), 10);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["tcpi_nothing", "1 +", "(1", "1 2", ""] {
            assert!(Expr::parse(text).is_err(), "{text}");
        }
        let info = TcpInfo::default().to_bytes();
        assert!(Expr::parse("1 / 0").unwrap().eval(&info).is_err());
    }
}
