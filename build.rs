//! Compiles the proto file with protox, so that no build needs `protoc`, and writes the descriptor set that reflection serves.

use std::{env, fs, path::PathBuf};

use protox::prost::Message as _;

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script in its environment where to write")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["backend_signal/v1/signal.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("signal.bin"), descriptors.encode_to_vec())?;
    let generate = tonic_prost_build::configure().build_transport(false).codec_path("crate::grpc::codec::SignalCodec");
    generate.compile_fds(descriptors)?;
    Ok(())
}
