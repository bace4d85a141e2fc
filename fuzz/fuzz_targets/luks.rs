//! Any bytes as a LUKS2 header, with the checksum put right: what is mapped lies on the device, and a token never demands PCR 10.
#![no_main]

use ima::hash::HashAlgorithm;
use ima::luks::{Container, IMA_PCR};

const LENGTH: u64 = 1 << 30;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    let mut header = vec![0; 0x4000];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\x00\x02");
    header[8..16].copy_from_slice(&0x4000_u64.to_be_bytes());
    header[72..78].copy_from_slice(b"sha256");
    for (to, from) in header[4096..].iter_mut().zip(json) {
        *to = *from;
    }
    let digest = HashAlgorithm::Sha256.digest(&header).expect("a digest");
    header[448..480].copy_from_slice(&digest);
    let read = Container::read(&mut |offset, length| {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = header.get(start..).unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    });
    let Ok(container) = read else { return };
    if let Ok((sectors, _)) = container.table("8:1", LENGTH, 64, "a:b") {
        assert!(sectors > 0 && sectors * 512 <= LENGTH);
    }
    for token in container.tokens().unwrap_or_default() {
        assert!(!token.sealed.pcrs.contains(IMA_PCR));
    }
});
