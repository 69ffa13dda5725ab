package main

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/hyperkeep/hyperkeep/controllers/backuprepository"
	"github.com/hyperkeep/hyperkeep/controllers/hypervhost"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/controllers/virtualmachine"
)

// setUp registers the indexes, the controllers and the probes.
func setUp(ctx context.Context, mgr ctrl.Manager, f flags) error {
	clk := clock.RealClock{}
	account := types.NamespacedName{Namespace: f.namespace, Name: f.serviceAccount}
	return errors.Join(
		index.Register(ctx, mgr.GetFieldIndexer()),
		hypervhost.SetupWithManager(mgr, hypervhost.Options{Manager: account, Clock: clk}),
		virtualmachine.SetupWithManager(mgr, virtualmachine.Options{Clock: clk}),
		backuprepository.SetupWithManager(mgr, backuprepository.Options{
			Namespace: f.namespace, KeeperNamespace: f.keeperNamespace, SecretPoll: backuprepository.DefaultSecretPoll, Clock: clk,
		}),
		mgr.AddHealthzCheck("alive", healthz.Ping),
		mgr.AddReadyzCheck("ready", healthz.Ping),
	)
}
