# The S3 server as a pod, for clusters that cannot reach this machine.
FROM scratch
COPY versitygw /versitygw
ENTRYPOINT ["/versitygw"]
