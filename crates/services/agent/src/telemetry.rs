//! The agent's own metrics.

triptych_model::telemetry! {
    /// Files that are followed now.
    gauge files() = "triptych_agent_files";
    /// Lines that were acknowledged.
    counter sent_lines() = "triptych_agent_sent_lines_total";
    /// Lines that were refused, by reason.
    counter refused_lines(reason) = "triptych_agent_refused_lines_total";
    /// Lines that were cut because they were longer than `agent.line_bytes_max`.
    counter cut_lines() = "triptych_agent_cut_lines_total";
    /// Files that could not be read when their turn came.
    counter read_errors() = "triptych_agent_read_errors_total";
    /// Batches that were refused whole; their lines are left out.
    counter lost_batches() = "triptych_agent_lost_batches_total";
    /// Sends that failed and were tried again.
    counter retries() = "triptych_agent_retries_total";
    /// Collections of host metrics that could not be written.
    counter lost_host_metrics() = "triptych_agent_lost_host_metrics_total";
}
