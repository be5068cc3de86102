// The same from Rust, over the C ABI.
use std::ffi::{c_char, CString};

#[repr(C)]
struct Quantizer {
    struct_size: usize,
    kind: i32,
    group_size: i32,
    seed: u64,
    key_scale: i32,
    value_scale: i32,
}

#[repr(C)]
#[derive(Default)]
struct SectionLayout {
    struct_size: usize,
    params_bytes: u64,
    row_bytes: u64,
    codes_offset: u64,
    section_bytes: u64,
}

#[link(name = "ratequant_kv")]
extern "C" {
    fn rq_kv_abi_version() -> u32;
    fn rq_kv_parse_quantizer(text: *const c_char, out: *mut Quantizer) -> i32;
    fn rq_kv_section_layout_of(
        quantizer: *const Quantizer,
        tensor: i32,
        width: i32,
        head_dim: i32,
        page_tokens: i32,
        out: *mut SectionLayout,
    ) -> i32;
}

fn main() {
    let mut quantizer = Quantizer {
        struct_size: std::mem::size_of::<Quantizer>(),
        kind: 0,
        group_size: 0,
        seed: 0,
        key_scale: 0,
        value_scale: 0,
    };
    let mut layout = SectionLayout {
        struct_size: std::mem::size_of::<SectionLayout>(),
        ..Default::default()
    };
    let name = CString::new("kivi").unwrap();
    unsafe {
        assert_eq!(rq_kv_abi_version(), 1);
        assert_eq!(rq_kv_parse_quantizer(name.as_ptr(), &mut quantizer), 0);
        assert_eq!(rq_kv_section_layout_of(&quantizer, 0, 4, 64, 32, &mut layout), 0);
    }
    println!("{}", layout.section_bytes);
}
