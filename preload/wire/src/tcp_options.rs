//! TCP options: what Linux understands, tolerates and sends, in its order.

/// Most option bytes of a segment.
pub const MAX_OPTIONS_LEN: usize = 40;
/// Most SACK blocks of a segment.
pub const MAX_SACK_BLOCKS: usize = 4;
/// Longest fast open cookie, bytes.
pub const MAX_COOKIE_LEN: usize = 16;
/// Shortest fast open cookie, bytes.
pub const MIN_COOKIE_LEN: usize = 4;
/// Largest window scale that counts (RFC 7323 §2.3).
pub const MAX_WSCALE: u8 = 14;

const EOL: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WSCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const MD5SIG: u8 = 19;
const FASTOPEN: u8 = 34;
const EXPERIMENTAL: u8 = 254;
/// Length of the MD5 option (RFC 2385 §3.0), bytes: what is shorter has none.
pub const MD5SIG_LEN: usize = 18;
/// Experiment identifier of fast open (RFC 7413 appendix A.2).
const FASTOPEN_MAGIC: u16 = 0xf989;

/// Left edge and right edge, the sequence number after the block's last byte.
pub type SackBlock = (u32, u32);

/// Up to [`MAX_SACK_BLOCKS`] blocks in the order of the segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [SackBlock; MAX_SACK_BLOCKS],
    len: u8,
}

impl SackBlocks {
    /// Appends a block; false when there is no place left.
    pub fn push(&mut self, block: SackBlock) -> bool {
        match self.blocks.get_mut(usize::from(self.len)) {
            Some(place) => {
                *place = block;
                self.len += 1;
                true
            }
            None => false,
        }
    }

    /// The blocks.
    pub fn as_slice(&self) -> &[SackBlock] {
        self.blocks
            .get(..usize::from(self.len))
            .unwrap_or(&self.blocks)
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }
}

impl FromIterator<SackBlock> for SackBlocks {
    /// The first [`MAX_SACK_BLOCKS`] of `blocks`.
    fn from_iter<I: IntoIterator<Item = SackBlock>>(blocks: I) -> Self {
        let mut out = Self::default();
        for block in blocks {
            if !out.push(block) {
                break;
            }
        }
        out
    }
}

/// The fast open option of a SYN or SYN-ACK (RFC 7413).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastOpen {
    cookie: [u8; MAX_COOKIE_LEN],
    len: u8,
    /// Under the experimental kind 254 with the magic number 0xF989.
    pub experimental: bool,
}

impl FastOpen {
    /// An empty option: a cookie is asked for.
    pub const fn request(experimental: bool) -> Self {
        Self {
            cookie: [0; MAX_COOKIE_LEN],
            len: 0,
            experimental,
        }
    }

    /// An option with a cookie; `None` unless its length is even and 4..=16 bytes.
    pub fn with_cookie(cookie: &[u8], experimental: bool) -> Option<Self> {
        if !is_cookie_len(cookie.len()) {
            return None;
        }
        let mut out = Self::request(experimental);
        out.cookie.get_mut(..cookie.len())?.copy_from_slice(cookie);
        out.len = cookie.len() as u8;
        Some(out)
    }

    /// Is a cookie asked for?
    pub const fn is_request(&self) -> bool {
        self.len == 0
    }

    /// The cookie, empty for a request.
    pub fn cookie(&self) -> &[u8] {
        self.cookie
            .get(..usize::from(self.len))
            .unwrap_or(&self.cookie)
    }

    fn option_len(&self) -> usize {
        usize::from(self.len) + if self.experimental { 4 } else { 2 }
    }
}

const fn is_cookie_len(len: usize) -> bool {
    len >= MIN_COOKIE_LEN && len <= MAX_COOKIE_LEN && len.is_multiple_of(2)
}

/// Whether a segment is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// No option says so.
    None,
    /// It has an MD5 option (RFC 2385).
    Md5,
    /// An option of wrong length, or a second MD5 option: not to be told.
    Broken,
}

impl Signature {
    /// Looks for it in the option bytes of a segment, as Linux 6.16 `tcp_do_parse_auth_options` does without TCP-AO:
    /// the last bytes, where an MD5 option would have no place, are not looked at.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut found = Self::None;
        let mut rest = bytes;
        while rest.len() >= MD5SIG_LEN {
            match *rest {
                [EOL, ..] => break,
                [NOP, ref after @ ..] => rest = after,
                [kind, len, ..] => {
                    let len = usize::from(len);
                    let Some((_, after)) = rest.split_at_checked(len).filter(|_| len >= 2) else {
                        return Self::Broken;
                    };
                    if kind == MD5SIG {
                        if len != MD5SIG_LEN || found == Self::Md5 {
                            return Self::Broken;
                        }
                        found = Self::Md5;
                    }
                    rest = after;
                }
                _ => break,
            }
        }
        found
    }
}

/// The options of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Largest segment the sender takes, SYN only. Never 0.
    pub mss: Option<u16>,
    /// Shift of the sender's windows, SYN only, 0..=14.
    pub wscale: Option<u8>,
    /// The sender understands SACK, SYN only.
    pub sack_permitted: bool,
    /// `(tsval, tsecr)`.
    pub timestamps: Option<(u32, u32)>,
    /// Selective acknowledgements.
    pub sack: SackBlocks,
    /// Fast open, SYN only.
    pub fastopen: Option<FastOpen>,
}

impl TcpOptions {
    /// Reads the option bytes of a segment; `syn` tells whether its SYN bit is set.
    ///
    /// Tolerant as Linux 6.16 `tcp_parse_options` is: a length below 2 or beyond the end stops
    /// the walk and keeps what was read; a known option of wrong length, an unknown one, and a
    /// handshake option outside of a SYN are skipped; of two the later counts; an MSS of 0 counts
    /// as absent; a larger window scale than 14 counts as 14.
    #[inline]
    pub fn parse(bytes: &[u8], syn: bool) -> Self {
        let mut options = Self::default();
        // What nearly every segment of an open connection has (RFC 7323 appendix A).
        if let [NOP, NOP, TIMESTAMPS, 10, a, b, c, d, e, f, g, h] = *bytes {
            let tsval = u32::from_be_bytes([a, b, c, d]);
            options.timestamps = Some((tsval, u32::from_be_bytes([e, f, g, h])));
            return options;
        }
        let mut rest = bytes;
        loop {
            match *rest {
                [] | [EOL, ..] => return options,
                [NOP, ref after @ ..] => rest = after,
                [kind, len, ref after @ ..] => {
                    let Some((body, after)) = usize::from(len)
                        .checked_sub(2)
                        .and_then(|n| after.split_at_checked(n))
                    else {
                        return options;
                    };
                    options.read(kind, body, syn);
                    rest = after;
                }
                [_] => return options,
            }
        }
    }

    fn read(&mut self, kind: u8, body: &[u8], syn: bool) {
        match (kind, body) {
            (MSS, &[a, b]) if syn => {
                let mss = u16::from_be_bytes([a, b]);
                if mss != 0 {
                    self.mss = Some(mss);
                }
            }
            (WSCALE, &[shift]) if syn => self.wscale = Some(shift.min(MAX_WSCALE)),
            (SACK_PERMITTED, []) if syn => self.sack_permitted = true,
            (TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                let tsval = u32::from_be_bytes([a, b, c, d]);
                self.timestamps = Some((tsval, u32::from_be_bytes([e, f, g, h])));
            }
            (SACK, body) => {
                let (blocks, rest) = body.as_chunks::<8>();
                if rest.is_empty() && !blocks.is_empty() {
                    self.sack = blocks.iter().map(read_block).collect();
                }
            }
            (FASTOPEN, cookie) if syn => self.read_fastopen(cookie, false),
            (EXPERIMENTAL, &[a, b, ref cookie @ ..])
                if syn && u16::from_be_bytes([a, b]) == FASTOPEN_MAGIC =>
            {
                self.read_fastopen(cookie, true);
            }
            _ => {}
        }
    }

    fn read_fastopen(&mut self, cookie: &[u8], experimental: bool) {
        if cookie.is_empty() {
            self.fastopen = Some(FastOpen::request(experimental));
        } else if let Some(option) = FastOpen::with_cookie(cookie, experimental) {
            self.fastopen = Some(option);
        }
    }

    /// Bytes that [`emit`](Self::emit) writes, a multiple of 4 and at most 40.
    #[inline]
    pub fn emitted_len(&self) -> usize {
        self.layout().2
    }

    /// SACK blocks that have a place beside the other options: three with time stamps.
    pub fn emitted_sack_blocks(&self) -> usize {
        self.layout().0
    }

    /// Blocks, whether fast open has a place, and the length of it all.
    #[inline]
    fn layout(&self) -> (usize, bool, usize) {
        let mut len = 0;
        if self.mss.is_some() {
            len += 4;
        }
        if self.timestamps.is_some() {
            len += 12;
        } else if self.sack_permitted {
            len += 4;
        }
        if self.wscale.is_some() {
            len += 4;
        }
        let mut blocks = 0;
        if !self.sack.is_empty() {
            blocks = self.sack.len().min((MAX_OPTIONS_LEN - 4 - len) / 8);
            if blocks > 0 {
                len += 4 + 8 * blocks;
            }
        }
        let fastopen_len = self
            .fastopen
            .map_or(0, |f| f.option_len().next_multiple_of(4));
        let fastopen = fastopen_len > 0 && len + fastopen_len <= MAX_OPTIONS_LEN;
        if fastopen {
            len += fastopen_len;
        }
        (blocks, fastopen, len)
    }

    /// Writes the options in Linux's order (spec TM-32 to TM-35, FO-25, FO-26): MSS; SACK
    /// permitted in the padding of the time stamps; window scale; SACK blocks; fast open. SACK
    /// blocks and fast open give way when 40 bytes do not hold them. `None` when `out` is too
    /// short.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let (blocks, fastopen, len) = self.layout();
        let mut out = Writer {
            rest: out.get_mut(..len)?,
        };
        if let Some(mss) = self.mss {
            out.put([MSS, 4])?;
            out.put(mss.to_be_bytes())?;
        }
        if let Some((tsval, tsecr)) = self.timestamps {
            out.put(if self.sack_permitted {
                [SACK_PERMITTED, 2]
            } else {
                [NOP, NOP]
            })?;
            out.put([TIMESTAMPS, 10])?;
            out.put(tsval.to_be_bytes())?;
            out.put(tsecr.to_be_bytes())?;
        } else if self.sack_permitted {
            out.put([NOP, NOP, SACK_PERMITTED, 2])?;
        }
        if let Some(shift) = self.wscale {
            out.put([NOP, WSCALE, 3, shift])?;
        }
        if blocks > 0 {
            out.put([NOP, NOP, SACK, (2 + 8 * blocks) as u8])?;
            for (left, right) in self.sack.as_slice().iter().take(blocks) {
                out.put(left.to_be_bytes())?;
                out.put(right.to_be_bytes())?;
            }
        }
        if let Some(option) = self.fastopen.filter(|_| fastopen) {
            let option_len = option.option_len();
            if option.experimental {
                out.put([EXPERIMENTAL, option_len as u8])?;
                out.put(FASTOPEN_MAGIC.to_be_bytes())?;
            } else {
                out.put([FASTOPEN, option_len as u8])?;
            }
            out.put_slice(option.cookie())?;
            if option_len % 4 == 2 {
                out.put([NOP, NOP])?;
            }
        }
        Some(len)
    }
}

fn read_block(&[a, b, c, d, e, f, g, h]: &[u8; 8]) -> SackBlock {
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        self.put_slice(&bytes)
    }

    #[inline(always)]
    fn put_slice(&mut self, bytes: &[u8]) -> Option<()> {
        let (place, rest) = core::mem::take(&mut self.rest).split_at_mut_checked(bytes.len())?;
        place.copy_from_slice(bytes);
        self.rest = rest;
        Some(())
    }
}

#[cfg(test)]
mod tests;
