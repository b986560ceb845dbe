extern crate std;
use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn emitted(options: &TcpOptions) -> Vec<u8> {
    let mut out = [0xee; MAX_OPTIONS_LEN];
    let len = options.emit(&mut out).unwrap();
    assert_eq!(len, options.emitted_len());
    assert!(
        out[len..].iter().all(|b| *b == 0xee),
        "nothing is written behind the options"
    );
    out[..len].to_vec()
}

/// TM-32.
#[test]
fn client_syn() {
    let options = TcpOptions {
        mss: Some(1460),
        wscale: Some(7),
        sack_permitted: true,
        timestamps: Some((0x0102_0304, 0)),
        ..TcpOptions::default()
    };
    let expected = [
        2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    assert_eq!(emitted(&options), expected);
    assert_eq!(TcpOptions::parse(&expected, true), options);
}

/// TM-33: SACK alone has its own padding.
#[test]
fn syn_ack_without_time_stamps() {
    let options = TcpOptions {
        mss: Some(536),
        sack_permitted: true,
        ..TcpOptions::default()
    };
    assert_eq!(emitted(&options), [2, 4, 2, 24, 1, 1, 4, 2]);
}

/// TM-34.
#[test]
fn data_segment() {
    let options = TcpOptions {
        timestamps: Some((1, 2)),
        ..TcpOptions::default()
    };
    let expected = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(emitted(&options), expected);
    assert_eq!(TcpOptions::parse(&expected, false), options);
}

/// TM-35.
#[test]
fn sack_block() {
    let sack = SackBlocks::from_iter([(0x10, 0x20)]);
    let options = TcpOptions {
        sack,
        ..TcpOptions::default()
    };
    assert_eq!(
        emitted(&options),
        [1, 1, 5, 10, 0, 0, 0, 0x10, 0, 0, 0, 0x20]
    );
}

#[test]
fn time_stamps_leave_room_for_three_blocks() {
    let sack = SackBlocks::from_iter([(1, 2), (3, 4), (5, 6), (7, 8), (9, 10)]);
    assert_eq!(sack.len(), MAX_SACK_BLOCKS);
    let mut options = TcpOptions {
        sack,
        ..TcpOptions::default()
    };
    assert_eq!(
        (options.emitted_sack_blocks(), options.emitted_len()),
        (4, 36)
    );
    options.timestamps = Some((0, 0));
    assert_eq!(
        (options.emitted_sack_blocks(), options.emitted_len()),
        (3, 40)
    );
    let read = TcpOptions::parse(&emitted(&options), false);
    assert_eq!(read.sack.as_slice(), [(1, 2), (3, 4), (5, 6)]);
}

/// FO-23 to FO-26.
#[test]
fn fast_open() {
    let base = TcpOptions {
        mss: Some(1460),
        wscale: Some(10),
        sack_permitted: true,
        timestamps: Some((9, 0)),
        ..TcpOptions::default()
    };
    let request = TcpOptions {
        fastopen: Some(FastOpen::request(false)),
        ..base
    };
    assert_eq!(emitted(&request)[20..], [34, 2, 1, 1]);
    let cookie = FastOpen::with_cookie(&[1, 2, 3, 4, 5, 6, 7, 8], false);
    let granted = TcpOptions {
        fastopen: cookie,
        ..base
    };
    assert_eq!(
        emitted(&granted)[20..],
        [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]
    );
    assert_eq!(TcpOptions::parse(&emitted(&granted), true), granted);
    let cookie = FastOpen::with_cookie(&[1, 2, 3, 4, 5, 6, 7, 8], true);
    let experimental = TcpOptions {
        fastopen: cookie,
        ..base
    };
    assert_eq!(
        emitted(&experimental)[20..],
        [254, 12, 0xf9, 0x89, 1, 2, 3, 4, 5, 6, 7, 8]
    );
    assert_eq!(
        TcpOptions::parse(&emitted(&experimental), true),
        experimental
    );
}

#[test]
fn cookies_of_impossible_length_do_not_count() {
    for len in [1, 2, 3, 5, 15, 17] {
        assert_eq!(FastOpen::with_cookie(&[0; 17][..len], false), None);
        let mut bytes = std::vec![34, len as u8 + 2];
        bytes.extend(core::iter::repeat_n(7, len));
        assert_eq!(
            TcpOptions::parse(&bytes, true).fastopen,
            None,
            "{len} bytes"
        );
    }
    assert_eq!(
        TcpOptions::parse(&[34, 6, 1, 2, 3, 4], false).fastopen,
        None,
        "no SYN"
    );
}

#[test]
fn what_linux_tolerates() {
    let parse = |bytes: &[u8]| TcpOptions::parse(bytes, true);
    assert_eq!(parse(&[2, 4, 0, 0]).mss, None, "an MSS of 0");
    assert_eq!(
        parse(&[2, 3, 5, 1, 2, 4, 5, 0xb4]).mss,
        Some(1460),
        "a wrong length is skipped"
    );
    assert_eq!(
        parse(&[99, 4, 0, 0, 2, 4, 5, 0xb4]).mss,
        Some(1460),
        "unknown kinds are skipped"
    );
    assert_eq!(
        parse(&[2, 4, 1, 1, 2, 4, 5, 0xb4]).mss,
        Some(1460),
        "the later one counts"
    );
    assert_eq!(
        parse(&[0, 2, 4, 5, 0xb4]).mss,
        None,
        "nothing after the end mark"
    );
    assert_eq!(
        parse(&[2, 4, 5, 0xb4, 3, 0, 4, 2]).mss,
        Some(1460),
        "length 0 ends the walk"
    );
    assert!(
        !parse(&[2, 4, 5, 0xb4, 3, 1, 4, 2]).sack_permitted,
        "length 1 ends the walk"
    );
    assert!(!parse(&[4, 3]).sack_permitted, "beyond the end");
    assert_eq!(parse(&[3, 3, 200]).wscale, Some(MAX_WSCALE));
    assert!(
        parse(&[5, 9, 0, 0, 0, 0, 0, 0, 0]).sack.is_empty(),
        "not a multiple of 8"
    );
    let outside = TcpOptions::parse(&[2, 4, 5, 0xb4, 3, 3, 7, 4, 2, 1], false);
    assert_eq!(
        outside,
        TcpOptions::default(),
        "handshake options without a SYN"
    );
}

fn any_options() -> impl Strategy<Value = TcpOptions> {
    let cookie = (prop::collection::vec(any::<u8>(), 0..=8), any::<bool>()).prop_map(
        |(half, experimental)| {
            let cookie: Vec<u8> = half.iter().flat_map(|b| [*b, !*b]).collect();
            FastOpen::with_cookie(&cookie, experimental).unwrap_or(FastOpen::request(experimental))
        },
    );
    let handshake = (
        prop::option::of(1u16..),
        prop::option::of(0..=MAX_WSCALE),
        any::<bool>(),
        prop::option::of(cookie),
    );
    let rest = (
        prop::option::of(any::<(u32, u32)>()),
        prop::collection::vec(any::<(u32, u32)>(), 0..=MAX_SACK_BLOCKS),
    );
    (handshake, rest).prop_map(
        |((mss, wscale, sack_permitted, fastopen), (timestamps, blocks))| TcpOptions {
            mss,
            wscale,
            sack_permitted,
            timestamps,
            sack: blocks.into_iter().collect(),
            fastopen,
        },
    )
}

proptest! {
    #[test]
    fn what_is_emitted_is_read_back(options in any_options()) {
        let bytes = emitted(&options);
        prop_assert!(bytes.len() <= MAX_OPTIONS_LEN && bytes.len().is_multiple_of(4));
        let read = TcpOptions::parse(&bytes, true);
        let blocks = options.emitted_sack_blocks();
        prop_assert_eq!(read.sack.as_slice(), &options.sack.as_slice()[..blocks]);
        prop_assert!(read.fastopen.is_none() || read.fastopen == options.fastopen);
        let expected = TcpOptions { sack: read.sack, fastopen: read.fastopen, ..options };
        prop_assert_eq!(read, expected);
        prop_assert_eq!(emitted(&read), bytes);
    }

    #[test]
    fn a_short_buffer_is_refused(options in any_options(), len in 0usize..=40) {
        let mut out = [0; MAX_OPTIONS_LEN];
        let fits = len >= options.emitted_len();
        prop_assert_eq!(options.emit(&mut out[..len]).is_some(), fits);
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..=60), syn: bool) {
        let options = TcpOptions::parse(&bytes, syn);
        prop_assert!(options.mss != Some(0));
        prop_assert!(options.wscale.is_none_or(|shift| shift <= MAX_WSCALE));
    }
}

#[test]
fn a_signature_is_found_and_what_is_broken_is_told() {
    let md5 = [&[MD5SIG, 18], [7; 16].as_slice()].concat();
    let with = |parts: &[&[u8]]| Signature::parse(&parts.concat());
    assert_eq!(with(&[&md5, &[NOP, NOP]]), Signature::Md5);
    assert_eq!(with(&[&[NOP, NOP], &md5]), Signature::Md5);
    assert_eq!(with(&[&[MSS, 4, 5, 180], &md5]), Signature::Md5);
    assert_eq!(with(&[&[MD5SIG, 17], &[7; 17]]), Signature::Broken);
    assert_eq!(with(&[&md5, &md5]), Signature::Broken);
    assert_eq!(with(&[&[EOL, 0], &md5]), Signature::None);
    assert_eq!(with(&[&[200, 0], &[0; 18]]), Signature::Broken);
    assert_eq!(with(&[&[200, 1], &[0; 18]]), Signature::Broken);
    assert_eq!(with(&[&[200, 21], &[0; 18]]), Signature::Broken);
    assert_eq!(with(&[&[200, 20], &[0; 18]]), Signature::None);
    // What comes behind is shorter than an MD5 option.
    assert_eq!(with(&[&[200, 0], &[0; 15]]), Signature::None);
    assert_eq!(with(&[&[MD5SIG, 16], &[7; 14]]), Signature::None);
}
