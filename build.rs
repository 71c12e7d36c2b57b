//! Compiles the protobufs, without a system `protoc`.
//!
//! Of the public interface the library gets the server side; the client side,
//! which only the integration tests speak, goes into a folder of its own. Of
//! the workers' interface it gets both: it is a gateway and it is a worker.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::prost_reflect::prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    // Which the library has in it.
    println!("cargo::rerun-if-changed=migrations");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let files = ["tenantry/v1/inference.proto", "tenantry/v1/ratings.proto"];
    let public = compiled(&files, &out.join("tenantry_descriptor.bin"))?;
    tonic_prost_build::configure().build_client(false).compile_fds(public.clone())?;
    let clients = out.join("client");
    fs::create_dir_all(&clients)?;
    tonic_prost_build::configure().build_server(false).out_dir(clients).compile_fds(public)?;

    let worker = compiled(&["tenantry/worker/v1/worker.proto"], &out.join("tenantry_worker_descriptor.bin"))?;
    tonic_prost_build::configure().compile_fds(worker)?;
    Ok(())
}

/// Files' descriptors, which are also written to `descriptors`, for reflection.
fn compiled(protos: &[&str], descriptors: &Path) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    // Comments travel along: `grpcurl describe` shows them.
    compiler.include_imports(true).include_source_info(true).open_files(protos)?;
    fs::write(descriptors, compiler.encode_file_descriptor_set())?;
    Ok(compiler.file_descriptor_set())
}
