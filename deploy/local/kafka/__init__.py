"""Apache Kafka for the local stack: fetched once, run as a child process, and reached as any cluster is."""
