//! A capture of a made-up connection: what is read out of it, and that its curves are on the page.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use plotters::style::RGBColor;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use sidewire_link::frame::{Checksum, Rest, RxFrame, RxMeta, TxFrame};
use sidewire_link::pcapng::Tee;
use sidewire_wire::ethernet::MacAddr;

use super::page::{self, ACKED, AGAIN, CWND, RATE, ROUND_TRIP, SENT};
use super::trace;

const ISN: u32 = 0xffff_f000;
const PEER_ISN: u32 = 77;
const MSS: u32 = 1448;
/// Segments in flight.
const LAG: u32 = 60;
const ACK: u8 = 0x10;
const SYN: u8 = 0x02;

/// IP and TCP header of a segment with `payload` bytes; a SYN has window scale 2.
fn headers(outbound: bool, seq: u32, ack: u32, flags: u8, payload: u32) -> Vec<u8> {
    let options: &[u8] = if flags & SYN != 0 { &[3, 3, 2, 0] } else { &[] };
    let len = 40 + options.len();
    let mut h = vec![0; len];
    h[0] = 0x45;
    h[2..4].copy_from_slice(&((len as u32 + payload) as u16).to_be_bytes());
    (h[8], h[9]) = (64, 6);
    let ends = [([192, 0, 2, 1], 40_000u16), ([192, 0, 2, 2], 80)];
    let (from, to) = if outbound { (0, 1) } else { (1, 0) };
    h[12..16].copy_from_slice(&ends[from].0);
    h[16..20].copy_from_slice(&ends[to].0);
    let sum = h[..20]
        .chunks(2)
        .map(|b| u32::from(u16::from_be_bytes([b[0], b[1]])))
        .sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    h[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    h[20..22].copy_from_slice(&ends[from].1.to_be_bytes());
    h[22..24].copy_from_slice(&ends[to].1.to_be_bytes());
    h[24..28].copy_from_slice(&seq.to_be_bytes());
    h[28..32].copy_from_slice(&ack.to_be_bytes());
    (h[32], h[33]) = ((20 + options.len() as u8) << 2, flags);
    h[34..36].copy_from_slice(&1000u16.to_be_bytes());
    h[40..].copy_from_slice(options);
    h
}

/// A file of the test's own, gone with it.
struct Capture(PathBuf);

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Two hundred segments, of which every fiftieth is sent again; an ack for each two, a while later.
fn capture(name: &str) -> Capture {
    let path = std::env::temp_dir().join(format!("sidewire-plot-{name}-{}", std::process::id()));
    let c_path = CString::new(path.to_str().unwrap()).unwrap();
    let mut tee = Tee::open(&c_path, 200).unwrap();
    let payload = [0u8; MSS as usize];
    let sent = |tee: &mut Tee, ms: u64, headers: &[u8], len: u32, comment: Option<&str>| {
        let frag = [libc::iovec {
            iov_base: payload.as_ptr().cast_mut().cast(),
            iov_len: len as usize,
        }];
        let frame = TxFrame {
            ifindex: 2,
            dst_mac: None,
            src_mac: MacAddr::UNSPECIFIED,
            headers,
            frags: &frag,
            gso_size: 0,
            mark: 0,
            priority: 0,
            tstamp: None,
            txtime: None,
        };
        tee.sent(ms * 1_000_000, &frame, comment).unwrap();
    };
    let received = |tee: &mut Tee, ms: u64, headers: &[u8]| {
        let meta = RxMeta {
            ifindex: 2,
            pkttype: 0,
            protocol: 0x800,
            len: headers.len() as u32,
            gso_size: 0,
            csum: Checksum::Valid,
            stamp: Some(ms * 1_000_000),
        };
        let frame = RxFrame {
            meta,
            bytes: headers,
            rest: Rest::Here,
        };
        tee.received(0, &frame, None).unwrap();
    };
    sent(&mut tee, 0, &headers(true, ISN, 0, SYN, 0), 0, None);
    received(
        &mut tee,
        1,
        &headers(false, PEER_ISN, ISN.wrapping_add(1), SYN | ACK, 0),
    );
    for n in 0..200u32 {
        let seq = ISN.wrapping_add(1 + n * MSS);
        let remark = format!("cwnd={} ssthresh=9 srtt_us={} mss={MSS}", 10 + n, 2000 + n);
        let ms = 2 + u64::from(n) * 2;
        let data = headers(true, seq, PEER_ISN + 1, ACK, MSS);
        sent(&mut tee, ms, &data, MSS, Some(&remark));
        if n % 50 == 49 {
            sent(
                &mut tee,
                ms,
                &data,
                MSS,
                Some("retransmission: RTO; cwnd=1"),
            );
        }
        if n % 2 == 1 && n > LAG {
            let ack = ISN.wrapping_add(1 + (n - LAG) * MSS);
            received(&mut tee, ms + 1, &headers(false, PEER_ISN + 1, ack, ACK, 0));
        }
    }
    let ack = ISN.wrapping_add(1 + 200 * MSS);
    received(&mut tee, 402, &headers(false, PEER_ISN + 1, ack, ACK, 0));
    Capture(path)
}

fn read(path: &Path) -> trace::Connection {
    let mut all = trace::read(path).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn a_capture_is_taken_apart() {
    let capture = capture("trace");
    let c = read(&capture.0);
    assert_eq!(c.local.to_string(), "192.0.2.1:40000");
    assert_eq!((c.out.bytes(), c.back.bytes()), (200 * u64::from(MSS), 0));
    assert_eq!(c.out.data.len(), 204);
    assert_eq!(c.out.data.iter().filter(|d| d.again).count(), 4);
    let last = c.out.acks.last().unwrap();
    let whole = 200 * u64::from(MSS);
    assert_eq!((last.upto, last.edge), (whole, whole + 4000));
    assert_eq!(c.out.in_flight.last().unwrap().1, 0);
    assert_eq!(c.cwnd.first().unwrap().1, 10 * u64::from(MSS));
    assert!((c.srtt[0].1 - 2.0).abs() < 1e-9);
    assert!((c.lasts - 0.402).abs() < 1e-9);
}

#[test]
fn what_cannot_be_read_is_said() {
    let capture = capture("refused");
    let whole = std::fs::read(&capture.0).unwrap();
    let said = |bytes: &[u8]| {
        std::fs::write(&capture.0, bytes).unwrap();
        trace::read(&capture.0).unwrap_err()
    };
    for no_pcapng in [&b""[..], b"\xd4\xc3\xb2\xa1 of tcpdump", b"text\n"] {
        assert!(said(no_pcapng).starts_with("no pcapng file"));
    }
    let cut = said(&whole[..whole.len() - 5]);
    assert_eq!(cut, "the file ends within a block");
}

#[test]
fn the_curves_are_on_the_page() {
    let capture = capture("page");
    let text = page::svg(&[read(&capture.0)]).unwrap();
    let tree = Tree::from_str(&text, &Options::default()).unwrap();
    let size = tree.size().to_int_size();
    let mut picture = Pixmap::new(size.width(), size.height()).unwrap();
    resvg::render(&tree, Transform::default(), &mut picture.as_mut());
    let third = |n: u32| size.width() / 3 * n..size.width() / 3 * (n + 1);
    let count = |color: RGBColor, chart: u32| {
        let near = |a: u8, b: u8| a.abs_diff(b) < 40;
        let columns = third(chart);
        let pixels = picture.pixels().iter().zip(0u32..);
        pixels
            .filter(|(_, at)| columns.contains(&(at % size.width())))
            .filter(|(p, _)| {
                near(p.red(), color.0) && near(p.green(), color.1) && near(p.blue(), color.2)
            })
            .count()
    };
    // A curve across a chart has at least as many points as the chart is wide, the legend about twenty.
    for (color, chart, least) in [
        (SENT, 0, 150),
        (ACKED, 0, 150),
        (AGAIN, 0, 30),
        (CWND, 1, 150),
        (ROUND_TRIP, 1, 150),
        (RATE, 2, 150),
    ] {
        let found = count(color, chart);
        assert!(found >= least, "{color:?} in chart {chart}: {found} pixels");
    }
    assert_eq!(count(AGAIN, 2), 0);
}
