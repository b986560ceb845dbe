//! A copy of every frame to a pcapng file, when the settings ask for one.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use sidewire_link::Errno;
use sidewire_link::frame::{RxFrame, TxFrame};
use sidewire_link::pcapng::Tee;

use crate::config;
use crate::stack::wall_ns;

/// Bytes kept of each frame: all of the largest.
const SNAPLEN: usize = 1 << 16;

/// Where the copies go, if anywhere.
#[derive(Debug, Default)]
pub(crate) struct Capture(Option<Tee>);

impl Capture {
    /// Opens the file that the settings name.
    pub(crate) fn open() -> Self {
        let Some(file) = config::get().pcap.as_deref() else {
            return Self::default();
        };
        let opened = CString::new(file.as_os_str().as_bytes())
            .map_err(|_| Errno::EINVAL)
            .and_then(|path| Tee::open(&path, SNAPLEN));
        match opened {
            Ok(tee) => Self(Some(tee)),
            Err(e) => {
                crate::warning!("SIDEWIRE_PCAP={}: {e}", file.display());
                Self::default()
            }
        }
    }

    /// A frame was handed to the device.
    #[inline]
    pub(crate) fn sent(&mut self, frame: &TxFrame<'_>) {
        if let Some(tee) = &mut self.0 {
            let written = tee.sent(wall_ns(), frame, None);
            self.check(written);
        }
    }

    /// A frame came.
    #[inline]
    pub(crate) fn received(&mut self, frame: &RxFrame<'_>) {
        if let Some(tee) = &mut self.0 {
            let written = tee.received(wall_ns(), frame, None);
            self.check(written);
        }
    }

    /// A file that cannot be written to gets no more.
    #[cold]
    fn check(&mut self, written: Result<(), Errno>) {
        if let Err(e) = written {
            crate::warning!("SIDEWIRE_PCAP: {e}; the capture ends here");
            self.0 = None;
        }
    }
}
