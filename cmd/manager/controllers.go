package main

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/hyperkeep/hyperkeep/controllers/agenttask"
	"github.com/hyperkeep/hyperkeep/controllers/backupimage"
	"github.com/hyperkeep/hyperkeep/controllers/backupjob"
	"github.com/hyperkeep/hyperkeep/controllers/backuppolicy"
	"github.com/hyperkeep/hyperkeep/controllers/backuprepository"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/hypervhost"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/controllers/restorejob"
	"github.com/hyperkeep/hyperkeep/controllers/virtualmachine"
)

// setUp registers the indexes, the controllers and the probes.
func setUp(ctx context.Context, mgr ctrl.Manager, f flags) error {
	clk := clock.RealClock{}
	account := types.NamespacedName{Namespace: f.namespace, Name: f.serviceAccount}
	delegator := delegation.New(mgr.GetClient(), mgr.GetAPIReader())
	return errors.Join(
		index.Register(ctx, mgr.GetFieldIndexer()),
		hypervhost.SetupWithManager(mgr, hypervhost.Options{Manager: account, NodesNamespace: f.nodesNamespace, Clock: clk}),
		virtualmachine.SetupWithManager(mgr, virtualmachine.Options{Clock: clk}),
		backuprepository.SetupWithManager(mgr, backuprepository.Options{
			Namespace: f.namespace, KeeperNamespace: f.keeperNamespace, SecretPoll: backuprepository.DefaultSecretPoll, Clock: clk,
		}),
		backuppolicy.SetupWithManager(mgr, backuppolicy.Options{Clock: clk}),
		backupjob.SetupWithManager(mgr, backupjob.Options{Delegator: delegator, Clock: clk}),
		restorejob.SetupWithManager(mgr, restorejob.Options{Delegator: delegator, Clock: clk}),
		backupimage.SetupWithManager(mgr, backupimage.Options{Delegator: delegator, KeeperNamespace: f.keeperNamespace, Clock: clk}),
		agenttask.SetupWithManager(mgr, agenttask.Options{Delegator: delegator, Clock: clk}),
		mgr.AddHealthzCheck("alive", healthz.Ping),
		mgr.AddReadyzCheck("ready", healthz.Ping),
	)
}
