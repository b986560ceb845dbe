//! What was read from any option bytes is written in Linux's order and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_wire::tcp_options::{MAX_OPTIONS_LEN, TcpOptions};

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    let syn = first & 1 == 1;
    let options = TcpOptions::parse(bytes, syn);
    let mut out = [0; MAX_OPTIONS_LEN];
    let len = options
        .emit(&mut out)
        .expect("40 bytes are enough for any options");
    assert_eq!(len, options.emitted_len());
    assert!(len.is_multiple_of(4));
    let read = TcpOptions::parse(&out[..len], syn);
    let blocks = options.emitted_sack_blocks();
    assert_eq!(read.sack.as_slice(), &options.sack.as_slice()[..blocks]);
    let fastopen = read.fastopen.and(options.fastopen);
    assert_eq!(
        read,
        TcpOptions {
            sack: read.sack,
            fastopen,
            ..options
        }
    );
});
