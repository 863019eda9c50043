//! The bucket's own metrics.

triptych_model::telemetry! {
    /// Requests to the object storage by kind and outcome (`ok`, `not_found`, `conflict`, `denied`, `error`), retries included.
    counter operations(operation, outcome) = "triptych_bucket_operations_total";
    /// Time of one request to the object storage, until its answer's head.
    histogram operation_seconds(operation) = "triptych_bucket_operation_seconds";
    /// Bytes that were read from the object storage.
    counter read_bytes() = "triptych_bucket_read_bytes_total";
    /// Bytes that were written to the object storage.
    counter written_bytes() = "triptych_bucket_written_bytes_total";
    /// Pages of range reads that were in the cache (`hit`) or had to be fetched (`miss`).
    counter cache_pages(outcome) = "triptych_bucket_cache_pages_total";
}
