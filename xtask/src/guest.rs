//! The image that isolates start from: the guest, booted, with its memory as data segments.
//!
//! `crates/sandbox/guest/build.sh` compiles the guest; here it runs up to the point where a program
//! could start, and the module is written again with the memory as it is then. Starting an isolate is
//! a copy-on-write mapping of that memory.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use sha2::{Digest, Sha256};
use wasm_encoder::{
    ConstExpr, DataSection, MemorySection, MemoryType, Module as Encoded, RawSection,
};
use wasmparser::{Parser, Payload};
use wasmtime::{Engine, Linker, Module, Store};

/// Where the image is, and its SHA-256 beside it.
const IMAGE: &str = "crates/sandbox/guest/image.wasm";
const HASH: &str = "crates/sandbox/guest/image.sha256";
/// What the C library names to print; the host answers each with an error.
const STUBS: [&str; 4] = ["fd_close", "fd_fdstat_get", "fd_seek", "fd_write"];
const PAGE: usize = 4096;
const WASM_PAGE: usize = 65536;

/// Builds the image and writes it.
pub(crate) fn write(root: &Path) -> Result<ExitCode, String> {
    let image = build(root)?;
    fs::write(root.join(IMAGE), &image).map_err(|e| e.to_string())?;
    fs::write(root.join(HASH), format!("{}\n", hash(&image))).map_err(|e| e.to_string())?;
    super::complain(&format!(
        "xtask: wrote {IMAGE}, {} bytes, {}\n",
        image.len(),
        hash(&image)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Builds the image; a failure when the one in the repository differs.
pub(crate) fn compare(root: &Path) -> Result<ExitCode, String> {
    let (built, kept) = (
        build(root)?,
        fs::read(root.join(IMAGE)).map_err(|e| e.to_string())?,
    );
    if built == kept {
        super::complain("xtask: the image is what its sources give\n");
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!(
        "{IMAGE} is not what its sources give ({} instead of {}): run `cargo xtask guest`",
        hash(&built),
        hash(&kept)
    ))
}

/// The SHA-256 of `bytes` in hexadecimal digits.
fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn build(root: &Path) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let guest = folder.path().join("guest.wasm");
    let status = Command::new(root.join("crates/sandbox/guest/build.sh"))
        .arg(&guest)
        .status()
        .map_err(|e| format!("crates/sandbox/guest/build.sh: {e}"))?;
    if !status.success() {
        return Err("crates/sandbox/guest/build.sh failed".to_owned());
    }
    let guest = fs::read(&guest).map_err(|e| e.to_string())?;
    let memory = boot(&guest).map_err(|e| format!("the guest does not boot: {e:#}"))?;
    rewrite(&guest, &memory)
}

/// The memory of the guest once it has booted. A call of the host would trap: booting needs none.
fn boot(guest: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let engine = Engine::default();
    let module = Module::new(&engine, guest)?;
    for import in module.imports() {
        if import.module() != "host" && !STUBS.contains(&import.name()) {
            wasmtime::bail!("the guest imports {}.{}", import.module(), import.name());
        }
    }
    let mut linker = Linker::new(&engine);
    linker.define_unknown_imports_as_traps(&module)?;
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &module)?;
    for name in ["_initialize", "sb_boot"] {
        instance
            .get_typed_func::<(), ()>(&mut store, name)?
            .call(&mut store, ())?;
    }
    let memory = instance
        .get_memory(&mut store, "memory")
        .ok_or_else(|| wasmtime::format_err!("the guest exports no memory"))?;
    let mut bytes = memory.data(&store).to_vec();
    // What booting left on the stack means nothing: the next call begins at its top again.
    let top = instance
        .get_global(&mut store, "__stack_pointer")
        .and_then(|global| global.get(&mut store).i32())
        .and_then(|top| usize::try_from(top).ok())
        .ok_or_else(|| wasmtime::format_err!("the guest exports no stack pointer"))?;
    bytes[..top].fill(0);
    Ok(bytes)
}

/// `guest` with `memory` as its data: the code stays, what initialised it goes.
fn rewrite(guest: &[u8], memory: &[u8]) -> Result<Vec<u8>, String> {
    let mut module = Encoded::new();
    for payload in Parser::new(0).parse_all(guest) {
        let payload = payload.map_err(|e| e.to_string())?;
        match &payload {
            Payload::MemorySection(_) => {
                let mut section = MemorySection::new();
                section.memory(MemoryType {
                    minimum: (memory.len() / WASM_PAGE) as u64,
                    maximum: None,
                    memory64: false,
                    shared: false,
                    page_size_log2: None,
                });
                module.section(&section);
            }
            Payload::DataSection(_) => {
                module.section(&segments(memory));
            }
            Payload::StartSection { .. }
            | Payload::DataCountSection { .. }
            | Payload::CustomSection(_) => {}
            _ => {
                if let Some((id, range)) = payload.as_section() {
                    module.section(&RawSection {
                        id,
                        data: &guest[range],
                    });
                }
            }
        }
    }
    Ok(module.finish())
}

/// One segment for each run of pages that are not empty.
fn segments(memory: &[u8]) -> DataSection {
    let mut section = DataSection::new();
    let mut run: Option<usize> = None;
    for at in (0..=memory.len()).step_by(PAGE) {
        let page = &memory[at.min(memory.len())..(at + PAGE).min(memory.len())];
        match (run, page.iter().any(|byte| *byte != 0)) {
            (None, true) => run = Some(at),
            (Some(start), false) => {
                section.active(
                    0,
                    &ConstExpr::i32_const(i32::try_from(start).unwrap_or(i32::MAX)),
                    memory[start..at].iter().copied(),
                );
                run = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    section
}
