//! Finds out whether a bucket honours conditional puts. Some servers ignore the condition, some fail the request.

use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use triptych_model::Result;

use crate::{Bucket, store_error};

/// Creates the object `path` twice: the condition is honoured where the first passes and the second is refused because the object is
/// there. The object is nobody else's, and is gone afterwards. Fails where the bucket takes no plain put either, which says nothing.
///
/// A yes is no promise for two who create at the same time: there are servers that are right one after another and let both win a race.
pub async fn honours_create(bucket: &Bucket, path: &Path) -> Result<bool> {
    let create = || {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        bucket.put_opts(path, PutPayload::from_static(b"probe"), options)
    };
    let remove = || async {
        match bucket.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    };
    // A probe that died may have left it behind. That the bucket takes puts at all tells a refusal from a failure.
    bucket.put(path, PutPayload::from_static(b"probe")).await.map_err(store_error)?;
    remove().await?;
    let honours = create().await.is_ok() && matches!(create().await, Err(Error::AlreadyExists { .. }));
    remove().await?;
    Ok(honours)
}
