//! The log's own metrics.

triptych_model::telemetry! {
    /// Time of one fsync; it acknowledges a whole group.
    histogram fsync_seconds(wal) = "triptych_wal_fsync_seconds";
    /// Bytes that were written and synced, framing included.
    counter written_bytes(wal) = "triptych_wal_written_bytes_total";
    /// Records per group, that is per fsync.
    histogram group_frames(wal) = "triptych_wal_group_frames";
    /// Writes or fsyncs that failed; the pushes that waited for them got an error.
    counter write_failures(wal) = "triptych_wal_write_failures_total";
    /// Segments that were deleted because the bucket has what was in them.
    counter segments_deleted(wal) = "triptych_wal_segments_deleted_total";
}
