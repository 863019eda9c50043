//! What rests in the write-ahead log.
//!
//! ```text
//! payload = version (1 B) = 1 | length of the tenant id (1 B) | tenant id | sealed batch (`triptych_model::batch`)
//! ```

use bytes::Bytes;
use triptych_model::{Error, Result, TenantId};

const VERSION: u8 = 1;

/// What stands before the sealed batch.
pub(crate) fn header(tenant: &TenantId) -> Bytes {
    let id = tenant.as_str().as_bytes();
    let mut header = Vec::with_capacity(2 + id.len());
    // A tenant id has at most 150 bytes.
    header.extend_from_slice(&[VERSION, id.len() as u8]);
    header.extend_from_slice(id);
    header.into()
}

/// Tenant and sealed batch of a payload; nothing in it is believed.
pub(crate) fn parse(payload: &Bytes) -> Result<(TenantId, Bytes)> {
    let torn = || Error::damaged("WAL record: torn");
    match payload.as_ref() {
        [VERSION, length, rest @ ..] => {
            let id = rest.get(..*length as usize).ok_or_else(torn)?;
            let id =
                std::str::from_utf8(id).map_err(|_| Error::damaged("WAL record: tenant is not UTF-8"))?;
            let tenant = TenantId::new(id).map_err(|e| Error::damaged(format!("WAL record: {e}")))?;
            Ok((tenant, payload.slice(2 + *length as usize..)))
        }
        [version, ..] => Err(Error::damaged(format!("WAL record: unknown version {version}"))),
        [] => Err(torn()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_and_nothing_else() {
        let tenant = TenantId::new("team-a").unwrap();
        let whole: Bytes = [header(&tenant), Bytes::from_static(b"batch")].concat().into();
        assert_eq!(parse(&whole).unwrap(), (tenant, Bytes::from_static(b"batch")));
        for bad in
            [&b""[..], b"\x01", b"\x02\x01a", b"\x01\x05abc", b"\x01\x02..", b"\x01\x00x", b"\x01\x01\xffx"]
        {
            assert!(parse(&Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
    }
}
