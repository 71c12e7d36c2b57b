use proptest::prelude::*;

use super::super::safetensors::{HeadFault, head_length, parse_head};
use super::{Planned, safetensors_bytes};

fn parse(json: &str, data_bytes: u64) -> Result<usize, HeadFault> {
    parse_head(json.as_bytes(), data_bytes).map(|tensors| tensors.len())
}

fn fault(json: &str, data_bytes: u64) -> (Option<String>, String) {
    let fault = parse(json, data_bytes).unwrap_err();
    (fault.tensor, fault.reason)
}

#[test]
fn tensors_must_cover_the_data_exactly() {
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"__metadata__":{{"format":"pt"}},"a":{{"dtype":"F32","shape":[2],"data_offsets":{first}}},
                "b":{{"dtype":"F32","shape":[2],"data_offsets":{second}}}}}"#
        )
    };
    assert_eq!(parse(&two("[0,8]", "[8,16]"), 16), Ok(2));
    let b = || Some("b".to_owned());
    let overlap = "starting at byte 4 overlaps the tensor before it";
    assert_eq!(fault(&two("[0,8]", "[4,12]"), 12), (b(), overlap.to_owned()));
    assert_eq!(fault(&two("[0,8]", "[9,17]"), 17), (b(), "starting at byte 9 leaves a hole before it".to_owned()));
    let padded = "its tensors take 16 bytes, but 17 follow the header: cut off or padded";
    assert_eq!(fault(&two("[0,8]", "[8,16]"), 17), (None, padded.to_owned()));
}

#[test]
fn sizes_that_overflow_and_names_that_repeat_are_refused() {
    let tensor = |shape: &str, offsets: &str| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#);
    let huge = format!(r#"{{"x":{}}}"#, tensor("[4611686018427387904,4]", "[0,0]"));
    let (name, reason) = fault(&huge, 0);
    assert_eq!(name.as_deref(), Some("x"));
    assert_eq!(reason, "bytes 0 to 0 do not hold F32 numbers of shape [4611686018427387904, 4]");
    let backwards = format!(r#"{{"x":{}}}"#, tensor("[1]", "[8,4]"));
    assert_eq!(fault(&backwards, 8).1, "bytes 8 to 4 do not hold F32 numbers of shape [1]");
    let twice = format!(r#"{{"x":{},"x":{}}}"#, tensor("[1]", "[0,4]"), tensor("[1]", "[4,8]"));
    assert_eq!(fault(&twice, 8), (Some("x".to_owned()), "occurs twice".to_owned()));
    let deep = format!(r#"{{"x":{{"dtype":"F32","shape":{}"#, "[".repeat(10_000));
    assert!(fault(&deep, 0).1.starts_with("the header is not valid: tensor `x`:"));
    let odd = r#"{"x":{"dtype":"Q7","shape":[],"data_offsets":[0,0]}}"#;
    assert_eq!(fault(odd, 0).1, "type Q7 is unknown");
    assert!(parse_head(b"{\"\xff\":1}", 0).is_err());
}

#[test]
fn a_head_longer_than_the_file_is_refused_before_it_is_read() {
    assert_eq!(
        head_length(1000u64.to_le_bytes(), 20).unwrap_err().reason,
        "the header claims 1000 bytes, the file has 12 after its length"
    );
    assert_eq!(
        head_length((1u64 << 30).to_le_bytes(), 1 << 40).unwrap_err().reason,
        "a header of 1073741824 bytes is more than 16777216"
    );
}

#[test]
fn the_safetensors_crate_reads_what_we_write_and_we_what_it_writes() {
    let planned = [Planned::f32("a", &[2, 3]), Planned::f32("b", &[4])];
    let ours = safetensors_bytes(&planned);
    let theirs = safetensors::SafeTensors::deserialize(&ours).unwrap();
    assert_eq!(theirs.tensor("a").unwrap().data(), planned[0].data);
    let views = theirs.tensors();
    let bytes = safetensors::serialize(views, None).unwrap();
    let head = head_length(bytes[..8].try_into().unwrap(), bytes.len() as u64).unwrap() as usize;
    assert_eq!(parse_head(&bytes[8..8 + head], (bytes.len() - 8 - head) as u64).unwrap().len(), 2);
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_a_sound_layout(json in proptest::collection::vec(any::<u8>(), 0..400), data in any::<u64>()) {
        let _ = parse_head(&json, data);
    }

    #[test]
    fn a_changed_head_is_an_error_or_a_sound_layout(changes in proptest::collection::vec((0usize..300, any::<u8>()), 1..6)) {
        let bytes = safetensors_bytes(&[Planned::f32("a", &[2, 3]), Planned::f32("bc", &[4])]);
        let head = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let (mut json, data) = (bytes[8..8 + head].to_vec(), (bytes.len() - 8 - head) as u64);
        for (at, byte) in changes {
            let at = at % json.len();
            json[at] = byte;
        }
        if let Ok(tensors) = parse_head(&json, data) {
            for tensor in tensors {
                prop_assert!(tensor.begin <= tensor.end && tensor.end <= data);
            }
        }
    }
}
