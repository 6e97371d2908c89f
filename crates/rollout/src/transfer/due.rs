//! What is to be sent, and the frame that it becomes.

use alloc::vec::Vec;

use lockstep_proto::frame::block::{Ask, Block, BlockFrame, Repair, Session};
use lockstep_proto::frame::coding::{BLOCK_BYTES_MAX, Cut, Shape};
use lockstep_proto::id::DeviceId;

/// A frame to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// A block.
    Block {
        /// How the object is cut.
        shape: Shape,
        /// Which block.
        index: u16,
        /// Where it begins in the object, in bytes.
        offset_bytes: u32,
        /// Its length in bytes.
        len_bytes: u32,
    },
    /// The XOR of several blocks of one generation.
    Repair {
        /// How the object is cut.
        shape: Shape,
        /// Which generation.
        generation: u16,
        /// What the members know the mix by: see [`Cut::mix`].
        named: u32,
    },
    /// A question.
    Ask {
        /// If set, only those are asked who lack something of this generation.
        generation: Option<u16>,
        /// Time between two answers, in milliseconds.
        slot_ms: u8,
        /// Who is to answer when.
        devices: Vec<DeviceId>,
    },
}

impl Due {
    /// The frame itself. `read` fills its second argument with bytes of the object from an offset
    /// on, and `payload` keeps what goes into the frame. `None`: not all of it could be read.
    pub fn frame<'a>(
        &'a self,
        session: Session,
        cut: Cut,
        payload: &'a mut [u8; BLOCK_BYTES_MAX],
        mut read: impl FnMut(u32, &mut [u8]) -> Option<()>,
    ) -> Option<BlockFrame<'a>> {
        Some(match *self {
            Self::Block { shape, index, offset_bytes, len_bytes } => {
                let payload = payload.get_mut(..usize::try_from(len_bytes).ok()?)?;
                read(offset_bytes, payload)?;
                BlockFrame::Block(Block { session, shape, index, payload })
            }
            Self::Repair { shape, generation, named } => {
                let sum = payload.get_mut(..usize::try_from(shape.block_bytes()).ok()?)?;
                sum.fill(0);
                let mix = cut.mix(session, generation, named);
                let base = u32::from(generation) * u32::from(shape.generation_blocks());
                for place in (0..u128::BITS).filter(|place| mix >> place & 1 == 1) {
                    let (offset, len_bytes) = cut.block(base + place)?;
                    let mut block = [0; BLOCK_BYTES_MAX];
                    let block = block.get_mut(..usize::try_from(len_bytes).ok()?)?;
                    read(offset, block)?;
                    sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= *byte);
                }
                BlockFrame::Repair(Repair { session, shape, generation, named, payload: sum })
            }
            Self::Ask { generation, slot_ms, ref devices } => {
                BlockFrame::Ask(Ask::new(session, generation, slot_ms, devices))
            }
        })
    }
}
