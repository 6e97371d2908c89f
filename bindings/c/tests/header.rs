//! The headers are what the sources make of them: one by cbindgen, the checksum of the other by us.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fails when the file is not what it should be, or makes it so with `UPDATE_EXPECT=1`.
#[track_caller]
fn assert_is(path: &Path, expected: &str) {
    let found = fs::read_to_string(path).unwrap_or_default();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, expected).unwrap();
    } else if found != expected {
        panic!("`{}` is out of date: run this test with UPDATE_EXPECT=1", path.display());
    }
}

fn sources() -> Vec<PathBuf> {
    let names = ["result", "callbacks", "setup", "shown", "device", "api", "lead"];
    names.iter().map(|name| here().join(format!("src/{name}.rs"))).collect()
}

#[test]
fn the_header_is_what_the_source_says() {
    let config = cbindgen::Config::from_file(here().join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in sources() {
        builder = builder.with_src(source);
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    let header = String::from_utf8(header).unwrap();
    // A result stands for itself: the shortest name.
    let header = without_safety(&header).replace("LOCKSTEP_RESULT_", "LOCKSTEP_");
    assert_is(&here().join("include/lockstep.h"), &header);
}

/// What Rust's callers must promise, a C caller always must.
fn without_safety(header: &str) -> String {
    let mut kept = String::new();
    let mut lines = header.lines().peekable();
    while let Some(line) = lines.next() {
        if line == " *" && lines.peek().is_some_and(|next| next.starts_with(" * # Safety")) {
            for skipped in lines.by_ref() {
                if skipped == " */" {
                    kept += " */\n";
                    break;
                }
            }
            continue;
        }
        kept += line;
        kept += "\n";
    }
    kept
}

/// CRC-32, written down once more, slowly.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn the_constants_of_the_checksum_are_right() {
    const COVERED_BYTES: usize = 124;
    let nothing = crc(&[0; COVERED_BYTES]);
    let mut head = [0; COVERED_BYTES];
    head[..9].copy_from_slice(b"\xD6LockSte\x01");
    let mut places = vec![(9, "oldest".to_owned()), (10, "newest".to_owned())];
    for (at, bytes, name) in
        [(12, 4, "number"), (16, 4, "minimum"), (20, 4, "epoch"), (24, 2, "schema")]
    {
        places.extend((0..bytes).map(|i| (at + i, format!("LOCKSTEP_BYTE_({name}, {i})"))));
    }
    for (at, letters, name) in [(28, 23, "product"), (52, 15, "role"), (68, 31, "board")] {
        places.extend((0..letters).map(|i| (at + i, format!("LOCKSTEP_AT_({name}, {i})"))));
    }
    let mut made = String::from(
        "#define LOCKSTEP_CRC_(product, role, board, number, minimum, oldest, newest, epoch, \
         schema) \\\n",
    );
    write!(made, "    (0x{:08X}u", crc(&head)).unwrap();
    for (at, byte) in places {
        let constants: Vec<String> = (0..8)
            .map(|bit| {
                let mut message = [0; COVERED_BYTES];
                message[at] = 1 << bit;
                format!("0x{:08X}u", crc(&message) ^ nothing)
            })
            .collect();
        let (first, second) = constants.split_at(4);
        let (first, second) = (first.join(", "), second.join(", "));
        write!(
            made,
            " \\\n     ^ LOCKSTEP_SUM_({byte}, \\\n         {first}, \\\n         {second})"
        )
        .unwrap();
    }
    made += ")\n";
    let path = here().join("include/lockstep_descriptor.h");
    let header = fs::read_to_string(&path).unwrap();
    let begin = header.find("#define LOCKSTEP_CRC_").unwrap();
    let end = header.find("/* The end of what the test has made. */").unwrap();
    assert_is(&path, &format!("{}{made}{}", &header[..begin], &header[end..]));
}

/// What the macro makes of what is right, and that it makes nothing of what is wrong.
#[test]
fn the_descriptor_of_a_c_program_is_that_of_rust() {
    use lockstep_proto::descriptor::Constant;

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let expected = Constant {
        product: "battery-companion-of-23",
        role: "a-long-role-it5",
        board: "x",
        version: "12.34.56",
        min_compatible: "1.0.99",
        protocol: (2, 255),
        epoch: 0xDEAD_BEEF,
        config_schema: 65535,
    }
    .encode();
    let right = "\"battery-companion-of-23\", \"a-long-role-it5\", \"x\", 12, 34, 56, 1, 0, 99, 2, \
                 255, 0xDEADBEEF, 65535";
    for language in
        [["cc", "-std=c11", "c"], ["c++", "-std=c++11", "cpp"], ["c++", "-std=c++17", "cc"]]
    {
        let Some(program) = compiled(folder, language, right) else {
            eprintln!("skipped: no {}", language[0]);
            continue;
        };
        let made = std::process::Command::new(program.unwrap()).output().unwrap().stdout;
        assert_eq!(made, expected, "{language:?}");
    }
    for wrong in [
        right.replace("34, 56", "100, 56"),
        right.replace("2, 255", "3, 2"),
        right.replace("\"x\"", "\"\""),
        right.replace("it5", "it56"),
        right.replace("65535", "65536"),
    ] {
        let made = compiled(folder, ["cc", "-std=c11", "c"], &wrong);
        assert!(made.is_none_or(|made| made.is_err()), "{wrong}");
    }
}

/// The program that writes its descriptor out; `None` without such a compiler, else what it says.
fn compiled(
    folder: &Path,
    [compiler, standard, ending]: [&str; 3],
    arguments: &str,
) -> Option<Result<PathBuf, String>> {
    let name = format!("descriptor-{ending}");
    let (source, program) = (folder.join(format!("{name}.{ending}")), folder.join(name));
    let text = format!(
        "#include <stdio.h>\n#include \"lockstep_descriptor.h\"\nLOCKSTEP_DESCRIPTOR({arguments});\n\
         int main(void) {{ return fwrite(lockstep_descriptor, 128, 1, stdout) != 1; }}\n"
    );
    fs::write(&source, text).unwrap();
    let mut command = std::process::Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Werror", "-I"]).arg(here().join("include"));
    let output = command.arg(&source).arg("-o").arg(&program).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(program) } else { Err(said) })
}
