use alloc::vec;
use alloc::vec::Vec;

use sidewire_uapi::socket as so;

use super::*;

const NONE: Caps = Caps {
    net_admin: false,
    net_raw: false,
    ipc_lock: false,
};
const RAW: Caps = Caps {
    net_admin: false,
    net_raw: true,
    ipc_lock: false,
};

fn cmsg(level: i32, ty: i32, data: &[u8]) -> Vec<u8> {
    raw(CMSG_HDR_LEN as u64 + data.len() as u64, level, ty, data)
}

fn raw(len: u64, level: i32, ty: i32, data: &[u8]) -> Vec<u8> {
    let mut v = Vec::new();
    v.extend(len.to_ne_bytes());
    v.extend(level.to_ne_bytes());
    v.extend(ty.to_ne_bytes());
    v.extend(data);
    v.resize(v.len().next_multiple_of(CMSG_ALIGN), 0);
    v
}

fn parse_with(control: &[u8], opts: &SockOpts, caps: Caps) -> (Result<(), Error>, SockcmCookie) {
    let mut c = SockcmCookie::seeded(0x10);
    let r = c.parse(control, opts, caps);
    (r, c)
}

fn parse(control: &[u8]) -> Result<(), Error> {
    parse_with(control, &SockOpts::default(), NONE).0
}

#[test]
fn cm_1_less_than_a_header_is_no_message() {
    for n in 0..CMSG_HDR_LEN {
        assert_eq!(parse(&vec![0xff; n]), Ok(()), "{n} bytes");
    }
}

#[test]
fn cm_2_cm_3_lengths_out_of_range_are_einval_at_any_level() {
    for len in [0, 15, 25, u64::MAX] {
        for level in [so::SOL_SOCKET, so::SOL_IP, 12345] {
            assert_eq!(
                parse(&raw(len, level, 1, &[0; 8])),
                Err(Error::Inval),
                "{len} {level}"
            );
        }
    }
}

#[test]
fn cm_4_cm_5_what_follows_a_valid_message() {
    let mut v = cmsg(so::SOL_SOCKET, so::SCM_RIGHTS, &[0; 4]);
    v.extend([0; 15]);
    assert_eq!(parse(&v), Ok(()));
    v.push(0);
    assert_eq!(parse(&v), Err(Error::Inval));
}

#[test]
fn cm_6_the_next_header_is_aligned_to_eight() {
    let mut v = cmsg(so::SOL_SOCKET, so::SO_PRIORITY, &5u32.to_ne_bytes());
    assert_eq!(v.len(), 24);
    v.extend(cmsg(so::SOL_SOCKET, 99, &[]));
    let (r, c) = parse_with(&v, &SockOpts::default(), NONE);
    assert_eq!(r, Err(Error::Inval));
    assert_eq!(c.priority, Some(5), "CM-9: what stood before took effect");
}

#[test]
fn cm_7_other_levels_are_skipped() {
    for level in [so::SOL_IP, so::SOL_IPV6, so::SOL_TCP, 12345] {
        assert_eq!(parse(&cmsg(level, 99, &[1, 2, 3])), Ok(()));
    }
}

#[test]
fn cm_8_cm_12_to_cm_17_cm_21_to_cm_25_types() {
    for ty in [so::SCM_RIGHTS, so::SCM_CREDENTIALS] {
        assert_eq!(parse(&cmsg(1, ty, &[])), Ok(()));
        assert_eq!(parse(&cmsg(1, ty, &[0; 100])), Ok(()));
    }
    for ty in [
        so::SCM_SECURITY,
        so::SCM_PIDFD,
        so::SO_TIMESTAMP,
        so::SO_TIMESTAMPNS,
        so::SCM_DEVMEM_LINEAR,
        so::SO_DEVMEM_DONTNEED,
        so::SCM_TS_OPT_ID,
        99,
        0,
        -1,
    ] {
        assert_eq!(parse(&cmsg(1, ty, &[0; 4])), Err(Error::Inval), "{ty}");
    }
}

#[test]
fn cm_10_the_last_of_a_type_wins() {
    let mut v = cmsg(1, so::SCM_DEVMEM_DMABUF, &7u32.to_ne_bytes());
    v.extend(cmsg(1, so::SCM_DEVMEM_DMABUF, &0u32.to_ne_bytes()));
    let (r, c) = parse_with(&v, &SockOpts::default(), NONE);
    assert_eq!((r, c.dmabuf_id), (Ok(()), 0));
}

#[test]
fn cm_16_priority_length_then_permission() {
    let p = |v: i32| cmsg(1, so::SO_PRIORITY, &v.to_ne_bytes());
    assert_eq!(parse(&cmsg(1, so::SO_PRIORITY, &[0; 8])), Err(Error::Inval));
    assert_eq!(parse(&p(0)), Ok(()));
    assert_eq!(parse(&p(6)), Ok(()));
    assert_eq!(parse(&p(7)), Err(Error::Perm));
    assert_eq!(parse(&p(-1)), Err(Error::Perm));
    assert_eq!(parse_with(&p(7), &SockOpts::default(), RAW).0, Ok(()));
}

#[test]
fn cm_18_mark_permission_then_length() {
    let short = cmsg(1, so::SO_MARK, &[0; 2]);
    assert_eq!(parse(&short), Err(Error::Perm));
    let d = SockOpts::default();
    assert_eq!(parse_with(&short, &d, RAW).0, Err(Error::Inval));
    let (r, c) = parse_with(&cmsg(1, so::SO_MARK, &9u32.to_ne_bytes()), &d, RAW);
    assert_eq!((r, c.mark), (Ok(()), Some(9)));
}

#[test]
fn cm_19_timestamping_replaces_the_record_bits_only() {
    for ty in [so::SO_TIMESTAMPING, so::SO_TIMESTAMPING_NEW] {
        assert_eq!(parse(&cmsg(1, ty, &[0; 8])), Err(Error::Inval));
        assert_eq!(
            parse(&cmsg(1, ty, &0x10u32.to_ne_bytes())),
            Err(Error::Inval)
        );
        let mut c = SockcmCookie::seeded(0x10 | 0x2 | 0x100);
        let v = cmsg(1, ty, &0x200u32.to_ne_bytes());
        assert_eq!(c.parse(&v, &SockOpts::default(), NONE), Ok(()));
        assert_eq!(c.tsflags, 0x10 | 0x200);
        let v = cmsg(1, ty, &0u32.to_ne_bytes());
        assert_eq!(c.parse(&v, &SockOpts::default(), NONE), Ok(()));
        assert_eq!(c.tsflags, 0x10);
    }
    let all = cmsg(1, so::SO_TIMESTAMPING, &0x40303u32.to_ne_bytes());
    assert_eq!(parse(&all), Ok(()));
}

#[test]
fn cm_20_txtime_needs_the_option_then_the_length() {
    let good = cmsg(1, so::SCM_TXTIME, &5u64.to_ne_bytes());
    assert_eq!(parse(&good), Err(Error::Inval));
    let on = SockOpts {
        txtime: Some((1, 0)),
        ..SockOpts::default()
    };
    let (r, c) = parse_with(&good, &on, NONE);
    assert_eq!((r, c.transmit_time), (Ok(()), 5));
    let bad = cmsg(1, so::SCM_TXTIME, &[0; 4]);
    assert_eq!(parse_with(&bad, &on, NONE).0, Err(Error::Inval));
}

#[test]
fn the_walk_is_shown_as_far_as_it_comes() {
    let walked = |control: &[u8]| SockcmCookie::walked(control, &SockOpts::default(), RAW);
    let types = |control: &[u8]| {
        let (messages, more) = walked(control);
        let shown: Vec<_> = messages.iter().map(|m| (m.ty, m.len, m.value)).collect();
        (shown, more)
    };
    let mark = cmsg(so::SOL_SOCKET, so::SO_MARK, &7u32.to_ne_bytes());
    let id = cmsg(so::SOL_SOCKET, so::SCM_TS_OPT_ID, &9u64.to_ne_bytes());
    let ip = cmsg(so::SOL_IP, 2, &[1]);
    // What ends it is the last.
    assert_eq!(
        types(&[&mark[..], &ip, &id, &mark].concat()),
        (
            vec![(so::SO_MARK, 4, 7), (2, 1, 0), (so::SCM_TS_OPT_ID, 8, 9)],
            0
        )
    );
    let bad = raw(15, so::SOL_SOCKET, so::SO_MARK, &[0; 8]);
    assert_eq!(types(&[&mark[..], &bad].concat()).0.len(), 1);
    assert_eq!(types(&bad), (vec![], 0));
    let (shown, more) = types(&mark.repeat(CONTROL_MAX + 3));
    assert_eq!((shown.len(), more), (CONTROL_MAX, 3));
}
