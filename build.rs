//! With the feature `generate`, writes `proto/generated` anew from the proto file. Otherwise does nothing: those files are committed,
//! because a first build would spend an eighth of its time on the crates that make them.

#[cfg(not(feature = "generate"))]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}

/// Compiles the proto file with protox, so that nobody needs `protoc`. The first line of the generated code has a hash of the proto
/// file, with which `tests/tidy.rs` finds that one was changed without the other.
#[cfg(feature = "generate")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::fs;

    use protox::prost::Message as _;

    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["backend_signal/v1/signal.proto"], ["proto"])?;
    fs::write("proto/generated/signal.bin", descriptors.encode_to_vec())?;
    let generate = tonic_prost_build::configure().build_transport(false).codec_path("crate::grpc::codec::SignalCodec");
    generate.out_dir("proto/generated").compile_fds(descriptors)?;
    let code = "proto/generated/backend_signal.v1.rs";
    let hash = fnv1a(&fs::read("proto/backend_signal/v1/signal.proto")?);
    let text = format!("// By `cargo check --features generate` from a proto file with the FNV-1a hash {hash:016x}.\n");
    Ok(fs::write(code, text + &fs::read_to_string(code)?)?)
}

/// A hash that the standard library's is not: the same in all versions of Rust.
#[cfg(feature = "generate")]
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
