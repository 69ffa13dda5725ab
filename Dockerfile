# Images of Hyperkeep, one target each:
#
#   docker build --target manager .        the manager
#   docker build --target agent .          the agent as a keeper of repositories, in the cluster
#   docker build --platform windows/amd64 --target agent-windows .
#                                          the agent of a Hyper-V host that is a Kubernetes node (config/nodes)
ARG GO_VERSION=1.26

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY agent agent
COPY cmd cmd
COPY controllers controllers
ARG TARGETOS TARGETARCH VERSION=development
ENV CGO_ENABLED=0
# Static programs, which name nothing of the machine that built them.
RUN for program in manager agent; do \
      GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" \
        -o "/out/$program$(GOOS=$TARGETOS go env GOEXE)" "./cmd/$program" || exit 1; \
    done

FROM gcr.io/distroless/static-debian12:nonroot AS manager
COPY --from=build /out/manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]

FROM gcr.io/distroless/static-debian12:nonroot AS agent
COPY --from=build /out/agent /agent
USER 65532:65532
ENTRYPOINT ["/agent"]

# A HostProcess container runs on the host itself, as the account that its pod names. containerd replaces the variable by where the image is mounted.
FROM mcr.microsoft.com/oss/kubernetes/windows-host-process-containers-base-image:v1.0.0 AS agent-windows
COPY --from=build /out/agent.exe /agent.exe
ENTRYPOINT ["%CONTAINER_SANDBOX_MOUNT_POINT%\\agent.exe"]
