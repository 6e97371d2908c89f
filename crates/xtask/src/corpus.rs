//! Which inputs of a fuzzer are worth a place in the repository: few and small ones that together
//! reach most of the code that all of them reach.
//!
//! What each input reaches is read from the control file that libFuzzer writes when it merges.

use std::collections::HashSet;
use std::path::PathBuf;

/// One input, and the places that it reaches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    size_bytes: u64,
    places: HashSet<u64>,
}

/// Reads a control file. An input that ended the program has reached nothing.
pub(crate) fn read(control: &str) -> Vec<Input> {
    let mut lines = control.lines();
    let count = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    // How many of them are in the first folder does not matter here.
    let paths = lines.by_ref().skip(1).take(count);
    let input = |path| Input { path: PathBuf::from(path), size_bytes: 0, places: HashSet::new() };
    let mut inputs: Vec<Input> = paths.map(input).collect();
    for line in lines {
        let mut words = line.split(' ');
        let (what, mut numbers) = (words.next(), words.filter_map(|word| word.parse().ok()));
        let index = numbers.next().and_then(|index: u64| usize::try_from(index).ok());
        match (what, index.and_then(|index| inputs.get_mut(index))) {
            (Some("STARTED"), Some(input)) => input.size_bytes = numbers.next().unwrap_or(0),
            (Some("FT"), Some(input)) => input.places = numbers.collect(),
            _ => (),
        }
    }
    inputs
}

/// Takes again and again the input that brings the most new places for its size, as long as there
/// is room for it.
pub(crate) fn choose(inputs: &[Input]) -> Vec<&Input> {
    let (mut chosen, mut room_bytes) = (Vec::new(), SIZE_BYTES_MAX);
    let mut left: Vec<(&Input, HashSet<u64>)> =
        inputs.iter().map(|input| (input, input.places.clone())).collect();
    while chosen.len() < FILES_MAX {
        left.retain(|(input, new)| input.size_bytes <= room_bytes && !new.is_empty());
        let best = left.iter().max_by_key(|(input, new)| {
            let gain = u64::try_from(new.len()).unwrap_or(u64::MAX);
            (gain.saturating_mul(GAIN_SCALE) / (input.size_bytes + FILE_BYTES), gain)
        });
        let Some((best, _)) = best else { break };
        let best = *best;
        room_bytes -= best.size_bytes;
        chosen.push(best);
        for (_, new) in &mut left {
            new.retain(|place| !best.places.contains(place));
        }
    }
    chosen
}

/// Share of all places that the chosen inputs reach, in percent.
pub(crate) fn share_percent(chosen: &[&Input], inputs: &[Input]) -> usize {
    let all: HashSet<&u64> = inputs.iter().flat_map(|input| &input.places).collect();
    let reached: HashSet<&u64> = chosen.iter().flat_map(|input| &input.places).collect();
    (reached.len() * 100).checked_div(all.len()).unwrap_or(100)
}

/// Inputs of one target: what a person can look through.
const FILES_MAX: usize = 48;
/// Bytes of one target: ten of them stay within 220 KiB.
const SIZE_BYTES_MAX: u64 = 22 * 1024;
/// What a file costs beside its bytes.
const FILE_BYTES: u64 = 256;
/// So that a place per kilobyte counts, in whole numbers.
const GAIN_SCALE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: &str = "4\n0\na\nb\nc\nd\nSTARTED 0 10\nFT 0 1 2 3\nCOV 0 1\nSTARTED 1 9000\n\
                           FT 1 1 2 3 4\nSTARTED 2 23000\nFT 2 9\nSTARTED 3 5\n";

    #[test]
    fn small_inputs_come_first_and_none_comes_that_brings_nothing_or_has_no_room() {
        let inputs = read(CONTROL);
        let chosen = choose(&inputs);
        let names: Vec<_> = chosen.iter().map(|input| input.path.display().to_string()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(share_percent(&chosen, &inputs), 80);
    }

    #[test]
    fn a_control_file_that_ends_early_has_what_is_there() {
        assert_eq!(read("").len(), 0);
        assert_eq!(read("3\n0\na\nb").len(), 2);
        assert!(choose(&read("1\n0\na\nSTARTED 0 7")).is_empty());
    }
}
