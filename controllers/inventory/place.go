package inventory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/index"
)

// Place is one host that lists a virtual machine.
type Place struct {
	// Host as the administrator declared it. Do not change it: it is the cache's own.
	Host *v1alpha1.HyperVHost
	// Facts that the host states. Do not change them either.
	Facts v1alpha1.VirtualMachineFacts
}

// alive says whether the host's agent can still correct what it said.
func (p Place) alive() bool {
	return meta.IsStatusConditionTrue(p.Host.Status.Conditions, v1alpha1.ConditionReady)
}

// Places returns the hosts that list the virtual machine with this id, sorted by name. What lies in a namespace that is no declared host's agent's counts
// for nothing, and neither does a host that is being deleted. The reader must have the indexes of package index.
func Places(ctx context.Context, reader client.Reader, id string) ([]Place, error) {
	var parts v1alpha1.HostInventoryList
	if err := reader.List(ctx, &parts, index.InventoriesWith(id), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list inventories with %s: %w", id, err)
	}
	var places []Place
	for i := range parts.Items {
		place, found, err := placeOf(ctx, reader, &parts.Items[i], id)
		if err != nil {
			return nil, err
		}
		// While a scan is written, two of its parts may list the same machine.
		if found && !slices.ContainsFunc(places, func(p Place) bool { return p.Host.Name == place.Host.Name }) {
			places = append(places, place)
		}
	}
	slices.SortFunc(places, func(a, b Place) int { return cmp.Compare(a.Host.Name, b.Host.Name) })
	return places, nil
}

// placeOf says false when the part does not count.
func placeOf(ctx context.Context, reader client.Reader, part *v1alpha1.HostInventory, id string) (Place, bool, error) {
	name, ok := strings.CutPrefix(part.Namespace, v1alpha1.AgentNamespacePrefix)
	if !ok {
		return Place{}, false, nil
	}
	host, first := &v1alpha1.HyperVHost{}, &v1alpha1.HostInventory{}
	err := reader.Get(ctx, client.ObjectKey{Name: name}, host, client.UnsafeDisableDeepCopy)
	if err == nil {
		err = reader.Get(ctx, client.ObjectKey{Namespace: part.Namespace, Name: PartName(0)}, first, client.UnsafeDisableDeepCopy)
	}
	if err != nil {
		if apierrors.IsNotFound(err) {
			return Place{}, false, nil
		}
		return Place{}, false, fmt.Errorf("read the inventory of %s: %w", name, err)
	}
	listed := slices.IndexFunc(part.Status.VirtualMachines, func(f v1alpha1.VirtualMachineFacts) bool { return f.ID == id })
	if !host.DeletionTimestamp.IsZero() || !counts(part, first) || listed < 0 {
		return Place{}, false, nil
	}
	return Place{Host: host, Facts: part.Status.VirtualMachines[listed]}, true, nil
}

// Lead chooses the place that a virtual machine is backed up at. It says false when none can be chosen and a person must resolve the duplicate id; the
// place is then only one to show: the present one, if it is among them.
//
// Where the hosts are nodes of a failover cluster, the cluster says which of them has the machine, and what another says of it counts for nothing.
//
// A Hyper-V Replica pair has one id on two hosts: the primary leads, or else the first replica. An agent that is lost cannot take back what it
// said, so where another host has the machine now, as after a failover, its word does not count.
func Lead(places []Place, present string) (lead Place, unique bool) {
	places = ofOwners(places)
	if place, pair := leadOfReplicas(places); pair {
		return place, true
	}
	current := slices.DeleteFunc(slices.Clone(places), func(p Place) bool { return !p.alive() })
	if len(current) == 0 {
		current = places
	}
	if place, pair := leadOfReplicas(current); pair {
		return place, true
	}
	for _, place := range current {
		if place.Host.Name == present {
			return place, len(current) == 1
		}
	}
	return current[0], len(current) == 1
}

// ofOwners leaves out the hosts whose cluster says that another node has the machine, unless nobody else lists it.
func ofOwners(places []Place) []Place {
	owners := slices.DeleteFunc(slices.Clone(places), func(p Place) bool { return p.Facts.OwnedElsewhere })
	if len(owners) == 0 {
		return places
	}
	return owners
}

// replicaRoles are the roles in Hyper-V Replica, as facts state them, from the one that leads to the one that follows.
var replicaRoles = []string{"Primary", "Replica", "ExtendedReplica"}

// leadOfReplicas says false unless the places are one machine and its replicas: each role at most once.
func leadOfReplicas(places []Place) (Place, bool) {
	if len(places) < 2 {
		return Place{}, false
	}
	rank := func(p Place) int { return slices.Index(replicaRoles, p.Facts.ReplicaRole) }
	ordered := slices.SortedFunc(slices.Values(places), func(a, b Place) int { return cmp.Compare(rank(a), rank(b)) })
	for i, place := range ordered {
		if rank(place) < 0 || i > 0 && rank(place) == rank(ordered[i-1]) {
			return Place{}, false
		}
	}
	return ordered[0], true
}
