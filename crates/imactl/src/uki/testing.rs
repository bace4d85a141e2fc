//! Programs for UEFI that do nothing, for tests.

use object::pe::{
    IMAGE_FILE_EXECUTABLE_IMAGE, IMAGE_FILE_MACHINE_AMD64, IMAGE_NT_OPTIONAL_HDR32_MAGIC,
    IMAGE_NT_OPTIONAL_HDR64_MAGIC, IMAGE_NT_SIGNATURE, IMAGE_NUMBEROF_DIRECTORY_ENTRIES,
    IMAGE_SCN_MEM_READ, IMAGE_SUBSYSTEM_EFI_APPLICATION, ImageDataDirectory, ImageNtHeaders64,
    ImageOptionalHeader64, ImageSectionHeader, Machine,
};
use object::pod::{bytes_of, from_bytes};
use object::{LittleEndian as LE, U32};

/// The processor of [`stub`] and [`kernel`].
pub const MACHINE: Machine = IMAGE_FILE_MACHINE_AMD64;

/// What [`stub`] has in `.sbat`.
pub const SBAT: &str =
    "sbat,1,SBAT Version,sbat,1,https://example.org/\nsystemd,1,Developers,systemd,252,\n";

/// The text by which the stub is known.
pub const MAGIC: &[u8] = b"#### LoaderInfo: systemd-stub 252.1-test ####\0";

/// A stub like systemd's.
pub fn stub() -> Vec<u8> {
    program(
        true,
        MACHINE,
        &[
            (".text", &[0xf4; 700]),
            (".reloc", &[0; 12]),
            (".sbat", SBAT.as_bytes()),
            (".sdmagic", MAGIC),
        ],
    )
}

/// A kernel for UEFI.
pub fn kernel() -> Vec<u8> {
    let text = b"code\0Linux version 6.1.0-test (builder@host) #1\0";
    program(true, MACHINE, &[(".text", text), (".data", &[7; 3000])])
}

/// Where the headers of [`program`] begin.
pub const HEADERS: usize = 0x80;

/// A program with these sections, PE32+ or PE32. Of the latter only the fields are right that both have in the same place.
pub fn program(is_64: bool, machine: Machine, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let mut bytes = vec![0; HEADERS];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = HEADERS as u8;
    let mut headers = ImageNtHeaders64 {
        signature: U32::new(LE, IMAGE_NT_SIGNATURE),
        ..*from_bytes(&[0; size_of::<ImageNtHeaders64>()]).unwrap().0
    };
    let directories = [0; IMAGE_NUMBEROF_DIRECTORY_ENTRIES * size_of::<ImageDataDirectory>()];
    let file = &mut headers.file_header;
    file.machine.set(LE, machine);
    file.number_of_sections
        .set(LE, sections.len().try_into().unwrap());
    let optional = size_of::<ImageOptionalHeader64>() + directories.len();
    file.size_of_optional_header
        .set(LE, optional.try_into().unwrap());
    file.characteristics.set(LE, IMAGE_FILE_EXECUTABLE_IMAGE);
    let optional = &mut headers.optional_header;
    let magic = match is_64 {
        true => IMAGE_NT_OPTIONAL_HDR64_MAGIC,
        false => IMAGE_NT_OPTIONAL_HDR32_MAGIC,
    };
    optional.magic.set(LE, magic);
    optional.section_alignment.set(LE, 0x1000);
    optional.file_alignment.set(LE, 0x200);
    optional.size_of_headers.set(LE, 0x400);
    optional.subsystem.set(LE, IMAGE_SUBSYSTEM_EFI_APPLICATION);
    optional
        .number_of_rva_and_sizes
        .set(LE, IMAGE_NUMBEROF_DIRECTORY_ENTRIES.try_into().unwrap());
    let (mut table, mut data) = (Vec::new(), Vec::new());
    let mut address = 0x1000;
    for (name, content) in sections {
        let mut header: ImageSectionHeader =
            *from_bytes(&[0; size_of::<ImageSectionHeader>()]).unwrap().0;
        header.name[..name.len()].copy_from_slice(name.as_bytes());
        header.virtual_size.set(LE, length(content));
        header.virtual_address.set(LE, address);
        header.pointer_to_raw_data.set(LE, 0x400 + length(&data));
        header
            .size_of_raw_data
            .set(LE, length(content).next_multiple_of(0x200));
        header.characteristics.set(LE, IMAGE_SCN_MEM_READ);
        table.extend_from_slice(bytes_of(&header));
        data.extend_from_slice(content);
        data.resize(data.len().next_multiple_of(0x200), 0);
        address = (address + length(content)).next_multiple_of(0x1000);
    }
    headers.optional_header.size_of_image.set(LE, address);
    bytes.extend_from_slice(bytes_of(&headers));
    bytes.extend(directories);
    bytes.extend(table);
    bytes.resize(0x400, 0);
    bytes.extend(data);
    bytes
}
