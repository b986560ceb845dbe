//! The control messages of a send: Linux's `sock_cmsg_send` (`rows.toml` cmsg).

use arrayvec::ArrayVec;
use sidewire_uapi::socket as so;
use sidewire_uapi::timestamping::SOF_TIMESTAMPING_TX_RECORD_MASK;

use crate::error::Error;
use crate::opts::SockOpts;
use crate::stack::Caps;
use crate::trace::{CONTROL_MAX, ControlMessage};

/// `sizeof(struct cmsghdr)`: length (8), level (4), type (4).
pub const CMSG_HDR_LEN: usize = 16;
/// Control messages are aligned to this.
pub const CMSG_ALIGN: usize = 8;

/// What the control messages of one send ask for: Linux's `struct sockcm_cookie`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SockcmCookie {
    /// SO_TIMESTAMPING flags for this call, seeded from the socket (step B1).
    pub tsflags: u32,
    /// SO_MARK; Linux's TCP parses it and lets the socket's mark rule.
    pub mark: Option<u32>,
    /// SO_PRIORITY; the same.
    pub priority: Option<u32>,
    /// SCM_TXTIME in nanoseconds of the SO_TXTIME clock; no effect on a TCP stream.
    pub transmit_time: u64,
    /// SCM_DEVMEM_DMABUF: the binding whose offsets the iovecs are; 0 is none.
    pub dmabuf_id: u32,
}

/// May a thread with `caps` give packets this priority (Linux `sk_set_prio_allowed`)?
#[must_use]
pub const fn prio_allowed(priority: u32, caps: Caps) -> bool {
    priority <= 6 || caps.net_raw || caps.net_admin
}

fn ne_u32(data: &[u8]) -> Result<u32, Error> {
    Ok(u32::from_ne_bytes(
        data.try_into().map_err(|_| Error::Inval)?,
    ))
}

/// A control message as it stands.
struct Message<'a> {
    level: i32,
    ty: i32,
    data: &'a [u8],
}

/// Linux's `for_each_cmsghdr` with its `CMSG_OK`: ends behind a length that cannot be.
fn messages(control: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Error>> {
    let mut rest = control;
    core::iter::from_fn(move || {
        let msg = rest;
        let header = msg.get(..CMSG_HDR_LEN)?;
        let len = u64::from_ne_bytes(header[..8].try_into().unwrap_or_default());
        if len < CMSG_HDR_LEN as u64 || len > msg.len() as u64 {
            rest = &[];
            return Some(Err(Error::Inval)); // CM-2, CM-3, CM-4
        }
        let len = len as usize;
        rest = msg
            .get(len.next_multiple_of(CMSG_ALIGN)..)
            .unwrap_or_default();
        Some(Ok(Message {
            level: i32::from_ne_bytes(header[8..12].try_into().unwrap_or_default()),
            ty: i32::from_ne_bytes(header[12..].try_into().unwrap_or_default()),
            data: &msg[CMSG_HDR_LEN..len],
        }))
    })
}

/// What a message of 4 or 8 bytes holds.
fn value(data: &[u8]) -> u64 {
    let long = || data.try_into().map(u64::from_ne_bytes).ok();
    ne_u32(data).map(u64::from).ok().or_else(long).unwrap_or(0)
}

impl SockcmCookie {
    /// A cookie as a call without control messages has it (step B1).
    #[must_use]
    pub fn seeded(tsflags: u32) -> Self {
        Self {
            tsflags,
            ..Self::default()
        }
    }

    /// Walks `control` in Linux's order (CM-1..CM-9). What stood before the first error has taken effect.
    ///
    /// # Errors
    /// `Inval` or `Perm` of the first message that is wrong; later ones are not looked at.
    pub fn parse(&mut self, control: &[u8], opts: &SockOpts, caps: Caps) -> Result<(), Error> {
        for message in messages(control) {
            self.take(&message?, opts, caps)?;
        }
        Ok(())
    }

    /// The first messages of a walk, and how many more it came across; that which ended it is the last.
    pub(crate) fn walked(
        control: &[u8],
        opts: &SockOpts,
        caps: Caps,
    ) -> (ArrayVec<ControlMessage, CONTROL_MAX>, usize) {
        let (mut first, mut more) = (ArrayVec::new(), 0);
        let mut cookie = Self::default();
        for message in messages(control).map_while(Result::ok) {
            let shown = ControlMessage {
                level: message.level,
                ty: message.ty,
                len: message.data.len(),
                value: value(message.data),
            };
            more += usize::from(first.try_push(shown).is_err());
            if cookie.take(&message, opts, caps).is_err() {
                break;
            }
        }
        (first, more)
    }

    /// One message (CM-12..CM-25, Linux `__sock_cmsg_send`).
    fn take(&mut self, message: &Message<'_>, opts: &SockOpts, caps: Caps) -> Result<(), Error> {
        let data = message.data;
        if message.level != so::SOL_SOCKET {
            return Ok(());
        }
        match message.ty {
            so::SCM_RIGHTS | so::SCM_CREDENTIALS => {}
            so::SO_MARK => {
                // CM-18: the capability comes before the length.
                if !caps.net_raw && !caps.net_admin {
                    return Err(Error::Perm);
                }
                self.mark = Some(ne_u32(data)?);
            }
            so::SO_PRIORITY => {
                let priority = ne_u32(data)?;
                if !prio_allowed(priority, caps) {
                    return Err(Error::Perm);
                }
                self.priority = Some(priority);
            }
            so::SO_TIMESTAMPING | so::SO_TIMESTAMPING_NEW => {
                let flags = ne_u32(data)?;
                if flags & !SOF_TIMESTAMPING_TX_RECORD_MASK != 0 {
                    return Err(Error::Inval);
                }
                self.tsflags = (self.tsflags & !SOF_TIMESTAMPING_TX_RECORD_MASK) | flags;
            }
            so::SCM_TXTIME => {
                if opts.txtime.is_none() {
                    return Err(Error::Inval);
                }
                self.transmit_time = u64::from_ne_bytes(data.try_into().map_err(|_| Error::Inval)?);
            }
            so::SCM_DEVMEM_DMABUF => self.dmabuf_id = ne_u32(data)?,
            // CM-24 included: SCM_TS_OPT_ID is for datagrams.
            _ => return Err(Error::Inval),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
