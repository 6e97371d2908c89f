//! The agent on a device: flash, bootloader, power cuts, and orders as a lead gives them.

mod anything;
mod conditions;
mod fixture;
mod lead;
mod orders;
mod patch;
mod poisoned;
mod power;
mod spool;
mod staging;
mod trial;
