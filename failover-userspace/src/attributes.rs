//! Attributes of the kernel's netlink messages (netlink(7), linux/netlink.h), for the questions that no library of ours asks.

/// NLA_TYPE_MASK: the other bits of a kind say how its value is made.
const KIND: u16 = 0x3fff;

/// The value of the first attribute of that kind. Each has its length, header included, and its kind in four bytes, in this
/// machine's order, and begins at a multiple of four. `None` also where they are cut short before it.
pub fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let [len_0, len_1, kind_0, kind_1, ..] = *attributes {
        let len = usize::from(u16::from_ne_bytes([len_0, len_1]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([kind_0, kind_1]) & KIND == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}
