//! A tee: frames written to a pcapng file, as IP packets, with the engine's remarks as comments.
//!
//! Super-frames are written whole, and unfinished checksums as they are, as any capture on a sender has them.

use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::frame::{RxFrame, TxFrame};
use crate::{file_limit, raw};
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use std::borrow::Cow;
use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Most interfaces that a file describes; frames of further ones are written under the last.
const MAX_INTERFACES: usize = 64;

/// if_tsresol: 10^-9 seconds.
const NANOSECONDS: u8 = 9;

/// Direction bits of the epb_flags option.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Mode of a new file: payload is nobody else's business.
const FILE_MODE: u32 = 0o600;

/// Collects a block, to be written by one system call: other processes may append to the same file.
#[derive(Debug)]
struct BlockFile {
    fd: Fd,
    block: Vec<u8>,
}

impl io::Write for BlockFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.block.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut rest = &self.block[..];
        while !rest.is_empty() {
            match file_limit::within(|| raw::write(self.fd.as_raw_fd(), rest)) {
                Ok(n) => rest = &rest[n..],
                Err(Errno::EINTR) => {}
                Err(e) => return Err(io::Error::from_raw_os_error(e.into_raw())),
            }
        }
        self.block.clear();
        Ok(())
    }
}

/// An open capture file.
pub struct Tee {
    writer: PcapNgWriter<BlockFile>,
    interfaces: Vec<u32>,
    snaplen: usize,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Tee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tee")
            .field("interfaces", &self.interfaces)
            .field("snaplen", &self.snaplen)
            .finish_non_exhaustive()
    }
}

impl Tee {
    /// Creates the file, or appends a section to it. At most `snaplen` bytes of each packet are kept.
    ///
    /// # Errors
    /// What open(2) and write(2) say.
    pub fn open(path: &CStr, snaplen: usize) -> Result<Tee, Errno> {
        let fd = move_high(raw::create(path, FILE_MODE)?)?;
        let mut writer = PcapNgWriter::new(BlockFile {
            fd,
            block: Vec::new(),
        })
        .map_err(errno)?;
        io::Write::flush(writer.get_mut()).map_err(io_errno)?;
        Ok(Tee {
            writer,
            interfaces: Vec::new(),
            snaplen,
            scratch: Vec::new(),
        })
    }

    /// Writes a frame that was handed to the device at `stamp`, nanoseconds of CLOCK_REALTIME. Payload that is not
    /// readable is left out.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn sent(
        &mut self,
        stamp: u64,
        frame: &TxFrame<'_>,
        comment: Option<&str>,
    ) -> Result<(), Errno> {
        let len = frame.headers.len() + frame.payload_len();
        let mut data = std::mem::take(&mut self.scratch);
        data.clear();
        data.extend_from_slice(&frame.headers[..frame.headers.len().min(self.snaplen)]);
        let room = frame.payload_len().min(self.snaplen - data.len());
        let start = data.len();
        data.resize(start + room, 0);
        let got = raw::read_own_memory(raw::getpid(), frame.frags, &mut data[start..]).unwrap_or(0);
        data.truncate(start + got);
        let result = self.write(frame.ifindex, stamp, &data, len, OUTBOUND, comment);
        self.scratch = data;
        result
    }

    /// Writes a received frame, as far as it has been looked at, with its arrival time or else `now`.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn received(
        &mut self,
        now: u64,
        frame: &RxFrame<'_>,
        comment: Option<&str>,
    ) -> Result<(), Errno> {
        let data = &frame.bytes[..frame.bytes.len().min(self.snaplen)];
        let stamp = frame.meta.stamp.unwrap_or(now);
        self.write(
            frame.meta.ifindex,
            stamp,
            data,
            frame.meta.len as usize,
            INBOUND,
            comment,
        )
    }

    fn write(
        &mut self,
        ifindex: u32,
        stamp: u64,
        data: &[u8],
        len: usize,
        flags: u32,
        comment: Option<&str>,
    ) -> Result<(), Errno> {
        let interface_id = self.interface(ifindex)?;
        let mut options = vec![EnhancedPacketOption::Flags(flags)];
        options.extend(comment.map(|c| EnhancedPacketOption::Comment(Cow::Borrowed(c))));
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(stamp),
            original_len: len as u32,
            data: Cow::Borrowed(data),
            options,
        };
        self.writer.write_pcapng_block(block).map_err(errno)?;
        io::Write::flush(self.writer.get_mut()).map_err(io_errno)
    }

    /// The number of an interface in the file, described when it is new.
    fn interface(&mut self, ifindex: u32) -> Result<u32, Errno> {
        if let Some(at) = self.interfaces.iter().position(|i| *i == ifindex) {
            return Ok(at as u32);
        }
        if self.interfaces.len() == MAX_INTERFACES {
            return Ok(MAX_INTERFACES as u32 - 1);
        }
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::IPV4,
            snaplen: self.snaplen as u32,
            options: vec![
                InterfaceDescriptionOption::IfName(format!("ifindex {ifindex}").into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_pcapng_block(block).map_err(errno)?;
        self.interfaces.push(ifindex);
        Ok(self.interfaces.len() as u32 - 1)
    }
}

fn errno(e: pcap_file::PcapError) -> Errno {
    match e {
        pcap_file::PcapError::IoError(e) => io_errno(e),
        _ => Errno::EINVAL,
    }
}

fn io_errno(e: io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Checksum, Rest, RxMeta};
    use pcap_file::pcapng::{Block, PcapNgReader};
    use sidewire_wire::ethernet::MacAddr;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn frames_come_back() {
        let path = std::env::temp_dir().join(format!("sidewire-tee-{}.pcapng", std::process::id()));
        let c_path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let headers = [0x45u8; 40];
        let payload = [9u8; 1000];
        let frags = [libc::iovec {
            iov_base: payload.as_ptr().cast_mut().cast(),
            iov_len: 1000,
        }];
        let tx = TxFrame {
            ifindex: 3,
            dst_mac: None,
            src_mac: MacAddr::UNSPECIFIED,
            headers: &headers,
            frags: &frags,
            gso_size: 500,
            mark: 0,
            priority: 0,
            tstamp: None,
            txtime: None,
        };
        let meta = RxMeta {
            ifindex: 4,
            pkttype: 0,
            protocol: 0x800,
            len: 2000,
            gso_size: 0,
            csum: Checksum::Valid,
            stamp: Some(1_700_000_000_123_456_789),
        };
        let rx = RxFrame {
            meta,
            bytes: &headers,
            rest: Rest::Queued,
        };
        let mut tee = Tee::open(&c_path, 100).unwrap();
        tee.sent(5, &tx, Some("retransmission")).unwrap();
        tee.received(6, &rx, None).unwrap();
        let bad = [libc::iovec {
            iov_base: std::ptr::without_provenance_mut(64),
            iov_len: 1000,
        }];
        tee.sent(7, &TxFrame { frags: &bad, ..tx }, None).unwrap();
        drop(tee);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
        // A second run appends a section.
        Tee::open(&c_path, 100).unwrap().sent(8, &tx, None).unwrap();
        let mut reader = PcapNgReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let mut seen = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(p) = block.unwrap() {
                let stamp = p.timestamp.as_nanos() as u64;
                seen.push((
                    p.interface_id,
                    stamp,
                    p.data.len(),
                    p.original_len,
                    p.options.len(),
                ));
            }
        }
        std::fs::remove_file(&path).unwrap();
        let stamp = 1_700_000_000_123_456_789;
        assert_eq!(
            seen,
            [
                (0, 5, 100, 1040, 2),
                (1, stamp, 40, 2000, 1),
                (0, 7, 40, 1040, 1),
                (0, 8, 100, 1040, 1)
            ]
        );
    }
}
