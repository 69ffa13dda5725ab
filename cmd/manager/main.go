// Command manager runs Hyperkeep's controllers in a cluster.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/index"
)

// version is set when the binary is built.
var version = "development"

// flags of the command line.
type flags struct {
	namespace, serviceAccount       string
	keeperNamespace, nodesNamespace string
	metrics, probes                 string
	secureMetrics, leaderElect      bool
	log                             zap.Options
}

func parse() flags {
	var f flags
	flag.StringVar(&f.namespace, "namespace", "hyperkeep-system", "namespace of the manager, where the Secrets of repositories are")
	flag.StringVar(&f.serviceAccount, "service-account", "hyperkeep-manager", "ServiceAccount of the manager: it gets the right to put credentials into the agents' namespaces")
	flag.StringVar(&f.keeperNamespace, "keeper-namespace", "hyperkeep-keeper", "namespace of the keeper")
	flag.StringVar(&f.nodesNamespace, "nodes-namespace", "", "namespace of the DaemonSet of agents, where Hyper-V hosts are nodes of this cluster; empty when there is none")
	flag.StringVar(&f.metrics, "metrics-bind-address", ":8443", "where metrics are served; 0 for nowhere")
	flag.BoolVar(&f.secureMetrics, "metrics-secure", true, "serve metrics over TLS, to those only whom the API server lets read them")
	flag.StringVar(&f.probes, "health-probe-bind-address", ":8081", "where /healthz and /readyz are served; 0 for nowhere")
	flag.BoolVar(&f.leaderElect, "leader-elect", false, "work only while no other manager does; needed with more than one replica")
	f.log.BindFlags(flag.CommandLine)
	flag.Parse()
	return f
}

func main() {
	f := parse()
	logger := zap.New(zap.UseFlagOptions(&f.log))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger) // what client-go says
	if err := run(ctrl.SetupSignalHandler(), f); err != nil {
		ctrl.Log.Error(err, "Manager ended")
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("no way to the API server: %w", err)
	}
	config.UserAgent = "hyperkeep-manager/" + version
	// A host with a thousand virtual machines is listed within seconds; the API server has its own limits.
	config.QPS, config.Burst = 100, 200
	opts, err := f.options()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, opts)
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if err := setUp(ctx, mgr, f); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	ctrl.Log.Info("Starting", "version", version)
	return mgr.Start(ctx)
}

func (f flags) options() (ctrl.Options, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return ctrl.Options{}, fmt.Errorf("register the API: %w", err)
	}
	metrics := metricsserver.Options{BindAddress: f.metrics, SecureServing: f.secureMetrics}
	if f.secureMetrics {
		metrics.FilterProvider = filters.WithAuthenticationAndAuthorization
		// HTTP/2 would bring its own ways to exhaust a server, and scrapers do without.
		metrics.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }}
	}
	return ctrl.Options{
		Scheme:                        scheme,
		Cache:                         index.CacheOptions(),
		Client:                        index.ClientOptions(),
		Metrics:                       metrics,
		HealthProbeBindAddress:        f.probes,
		LeaderElection:                f.leaderElect,
		LeaderElectionID:              "hyperkeep-manager",
		LeaderElectionNamespace:       f.namespace,
		LeaderElectionReleaseOnCancel: true, // main ends right after
	}, nil
}
