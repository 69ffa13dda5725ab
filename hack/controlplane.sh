#!/usr/bin/env bash
# Prints a folder with etcd, kube-apiserver and kubectl in it, for KUBEBUILDER_ASSETS; with
# --with-controller-manager kube-controller-manager is there too.
#
# It is the first that has them all: KUBEBUILDER_ASSETS itself; this user's cache; the cache after a
# download of the envtest archive; the cache after compiling what is still missing from the modules
# pinned in hack/controlplane (once, about twelve CPU minutes), because some networks reach a Go
# module proxy and nothing else.
set -euo pipefail
cd "$(dirname "$0")/controlplane"

wanted=(etcd kube-apiserver kubectl)
[[ ${1:-} == --with-controller-manager ]] && wanted+=(kube-controller-manager)
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hyperkeep/controlplane/$version
declare -A package=(
  [etcd]=go.etcd.io/etcd/server/v3
  [kube-apiserver]=k8s.io/kubernetes/cmd/kube-apiserver
  [kubectl]=k8s.io/kubernetes/cmd/kubectl
  [kube-controller-manager]=k8s.io/kubernetes/cmd/kube-controller-manager
)

has_all() { local name; for name in "${wanted[@]}"; do [[ -x $1/$name ]] || return 1; done; }

# install moves finished binaries into the cache; a rename, so that nobody ever sees half a file.
install() { local file; for file in "$@"; do chmod 0755 "$file" && mv "$file" "$cache/"; done; }

# download leaves the cache as it is when the archive cannot be had: compiling is the answer then.
download() {
  local tool found
  echo "Fetching Kubernetes $version, once for this user, into $cache" >&2
  tool=$(go -C ../tools tool -n setup-envtest)
  timeout 20 "$tool" list --bin-dir "$work" >/dev/null 2>&1 || return 0
  found=$(timeout 600 "$tool" use "$(cut -d. -f1,2 <<<"${version#v}").x" --bin-dir "$work" -p path 2>/dev/null) || return 0
  chmod -R u+w "$found" # setup-envtest makes its store read-only
  install "$found"/{etcd,kube-apiserver,kubectl}
}

# compile stamps the version: an API server that calls itself v0.0.0-master confuses its clients.
compile() {
  local name stamp="-s -w" pkg
  for pkg in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    stamp+=" -X $pkg.gitVersion=$version -X $pkg.gitTreeState=clean"
    stamp+=" -X $pkg.gitMajor=1 -X $pkg.gitMinor=$(cut -d. -f2 <<<"$version")"
  done
  for name in "${wanted[@]}"; do
    [[ ! -x $cache/$name ]] || continue
    ../progress.sh "compiling $name $version" \
      go build -v -trimpath -ldflags "$stamp" -o "$work/$name" "${package[$name]}"
    install "$work/$name"
  done
}

if has_all "${KUBEBUILDER_ASSETS:-/nonexistent}"; then echo "$KUBEBUILDER_ASSETS" && exit; fi
mkdir -p "$cache"
exec 9>"$cache/.lock" && flock 9 # a second caller waits here and then finds everything done
rm -rf "$cache"/.work.* # of a run that was killed
work=$(mktemp -d "$cache/.work.XXXXXX") && trap 'rm -rf "$work"' EXIT
has_all "$cache" || { download && has_all "$cache"; } || compile
echo "$cache"
