//! The bundle that a group is offered: a release's, and in front of each artifact what makes it of
//! what the group's devices run. Nothing of it is written anywhere but the patches.

use std::collections::BTreeMap;
use std::ops::Range;

use axum::body::Bytes;
use lockstep_proto::bundle::{BLOCK_BYTES, PATCHES_MAX, header, padding_bytes, patch_name};

use super::Extra;
use crate::manifests::Place;
use crate::publish::BUNDLE_BYTES_MAX;

/// Which of these patches fit into a release's bundle: not more of a role than a bundle may have,
/// none twice, and all together not too long.
pub fn fitting(
    bundle_bytes: u64,
    places: &BTreeMap<String, Place>,
    extras: Vec<Extra>,
) -> Vec<Extra> {
    let mut left: BTreeMap<&str, usize> = places
        .iter()
        .map(|(role, place)| {
            (role.as_str(), usize::from(PATCHES_MAX).saturating_sub(place.bases.len()))
        })
        .collect();
    let mut size_bytes = bundle_bytes;
    let mut fitting: Vec<Extra> = Vec::new();
    for extra in extras {
        let Some(place) = places.get(&extra.role) else { continue };
        let Some(left) = left.get_mut(extra.role.as_str()) else { continue };
        let is_there = place.bases.contains(&extra.old)
            || fitting.iter().any(|it| it.role == extra.role && it.tag() == extra.tag());
        let with_it = size_bytes + entry_bytes(&extra);
        if is_there || *left == 0 || with_it > BUNDLE_BYTES_MAX {
            continue;
        }
        *left -= 1;
        size_bytes = with_it;
        fitting.push(extra);
    }
    fitting
}

/// How long a bundle is with these patches.
pub fn size_with(bundle_bytes: u64, extras: &[Extra]) -> u64 {
    bundle_bytes + extras.iter().map(entry_bytes).sum::<u64>()
}

/// An entry of a bundle: header, patch, padding.
fn entry_bytes(extra: &Extra) -> u64 {
    let padding = padding_bytes(extra.size_bytes);
    u64::from(extra.size_bytes) + (BLOCK_BYTES + padding) as u64
}

/// A piece of a composed bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes of the release's bundle.
    Bundle(Range<u64>),
    /// These.
    Bytes(Bytes),
}

/// A bundle with further patches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    pieces: Vec<Piece>,
    size_bytes: u64,
}

impl Composed {
    /// Puts each patch in front of the artifact that it makes.
    pub fn new(
        bundle_bytes: u64,
        places: &BTreeMap<String, Place>,
        extras: &[(Extra, Bytes)],
    ) -> Self {
        let mut at: Vec<(u64, &Extra, &Bytes)> = extras
            .iter()
            .filter_map(|(extra, bytes)| {
                let place = places.get(&extra.role)?;
                Some((place.first.saturating_sub(BLOCK_BYTES as u64), extra, bytes))
            })
            .collect();
        at.sort_by_key(|(at, extra, _)| (*at, *extra));
        let (mut pieces, mut from) = (Vec::new(), 0);
        for (at, extra, bytes) in at {
            pieces.push(Piece::Bundle(from..at));
            from = at;
            let name = patch_name(&extra.role, extra.tag());
            pieces.push(Piece::Bytes(Bytes::copy_from_slice(&header(&name, extra.size_bytes))));
            pieces.push(Piece::Bytes(bytes.clone()));
            let padding = padding_bytes(extra.size_bytes);
            pieces.push(Piece::Bytes(vec![0; padding].into()));
        }
        pieces.push(Piece::Bundle(from..bundle_bytes));
        pieces.retain(|piece| piece.size_bytes() > 0);
        let size_bytes = pieces.iter().map(Piece::size_bytes).sum();
        Self { pieces, size_bytes }
    }

    /// A part of a bundle, as it is.
    pub fn part(first: u64, size_bytes: u64) -> Self {
        Self { pieces: vec![Piece::Bundle(first..first + size_bytes)], size_bytes }
    }

    /// How long it is.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What these bytes of it consist of.
    pub fn range(&self, wanted: &Range<u64>) -> Vec<Piece> {
        let mut first = 0;
        let cut = |piece: &Piece| {
            let (begin, end) = (first, first + piece.size_bytes());
            first = end;
            let (from, to) = (wanted.start.max(begin), wanted.end.min(end));
            (from < to).then(|| piece.cut(from - begin..to - begin))
        };
        self.pieces.iter().filter_map(cut).collect()
    }
}

impl Piece {
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Bundle(range) => range.end.saturating_sub(range.start),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    fn cut(&self, range: Range<u64>) -> Self {
        match self {
            Self::Bundle(all) => Self::Bundle(all.start + range.start..all.start + range.end),
            Self::Bytes(all) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(all.len());
                Self::Bytes(all.slice(place(range.start)..place(range.end)))
            }
        }
    }
}

#[cfg(test)]
#[path = "composed_tests.rs"]
mod tests;
