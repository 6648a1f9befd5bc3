# Beaufort's image: its one static program, and nothing else, so that it is built alike with and without a network.
# `make image` puts the program at dist/beaufort and builds this.
FROM scratch
LABEL org.opencontainers.image.title="Beaufort" \
      org.opencontainers.image.description="A container orchestrator that behaves like Amazon ECS and can be seen" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY dist/beaufort /beaufort
EXPOSE 4566
ENTRYPOINT ["/beaufort"]
CMD ["--help"]
