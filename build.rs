//! Compiles the protobufs, without a system `protoc`.
//!
//! The library gets the server side and the descriptors that reflection
//! serves; the client side, which only the integration tests speak, goes into
//! a folder of its own.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const PROTOS: [&str; 1] = ["proto/tenantry/v1/inference.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    // Comments travel along: `grpcurl describe` shows them.
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS.map(|path| &path["proto/".len()..]))?;
    fs::write(out.join("tenantry_descriptor.bin"), compiler.encode_file_descriptor_set())?;

    let descriptors = compiler.file_descriptor_set();
    tonic_prost_build::configure().build_client(false).compile_fds(descriptors.clone())?;

    let clients = out.join("client");
    fs::create_dir_all(&clients)?;
    tonic_prost_build::configure().build_server(false).out_dir(clients).compile_fds(descriptors)?;
    Ok(())
}
