//! U-Boot's legacy image (include/image.h, `struct legacy_img_hdr`): a header before what U-Boot gives to the kernel.

const MAGIC: [u8; 4] = [0x27, 0x05, 0x19, 0x56];
const HEADER: usize = 64;
/// IH_TYPE_RAMDISK
const RAMDISK: u8 = 3;

/// What U-Boot gives to the kernel: of its own image the content, of anything else all.
pub(super) fn content(image: &[u8]) -> Result<&[u8], String> {
    if !image.starts_with(&MAGIC) {
        return Ok(image);
    }
    let (Some(header), Some(content)) = (image.get(..HEADER), image.get(HEADER..)) else {
        return Err("a U-Boot image that ends in its header".to_owned());
    };
    match header.get(30) {
        Some(&RAMDISK) => {}
        _ => return Err("a U-Boot image of another type than a ramdisk".to_owned()),
    }
    let length = header.get(12..16).and_then(|size| size.first_chunk::<4>());
    let length = length.map_or(0, |size| u32::from_be_bytes(*size));
    usize::try_from(length)
        .ok()
        .and_then(|length| content.get(..length))
        .ok_or_else(|| format!("a U-Boot image of {length} bytes that ends before that"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_passed_over() {
        let mut image = vec![0; HEADER];
        image[..4].copy_from_slice(&MAGIC);
        image[15] = 3;
        image[30] = RAMDISK;
        image.extend(b"abcd");
        assert_eq!(content(&image), Ok(&b"abc"[..]));
        assert!(content(&image[..66]).is_err());
        assert!(content(&image[..9]).is_err());
        image[30] = 2;
        assert!(content(&image).is_err());
        assert_eq!(content(b"070701"), Ok(&b"070701"[..]));
    }
}
