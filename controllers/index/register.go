package index

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Register registers all indexes. Call it once for each manager, before that starts.
func Register(ctx context.Context, indexer client.FieldIndexer) error {
	indexes := []struct {
		object client.Object
		name   string
		keys   client.IndexerFunc
	}{
		{&v1alpha1.AgentTask{}, taskOwner, keys(func(t *v1alpha1.AgentTask) string { return t.Spec.Owner.UID })},
		{&v1alpha1.AgentTask{}, taskMachine, keys(func(t *v1alpha1.AgentTask) string { return t.Labels[v1alpha1.LabelVirtualMachineID] })},
		{&v1alpha1.AgentTask{}, taskCluster, keys(func(t *v1alpha1.AgentTask) string { return t.Labels[v1alpha1.LabelCluster] })},
		{&v1alpha1.BackupImage{}, imageMachine, keys(func(i *v1alpha1.BackupImage) string { return i.Spec.VirtualMachine.ID })},
		{&v1alpha1.BackupImage{}, imageObject, keys(func(i *v1alpha1.BackupImage) string { return i.Spec.VirtualMachine.ObjectName })},
		{&v1alpha1.BackupImage{}, imageSeries, keys(seriesOf)},
		{&v1alpha1.BackupImage{}, imageRepository, keys(func(i *v1alpha1.BackupImage) string { return i.Spec.RepositoryRef.Name })},
		{&v1alpha1.BackupJob{}, jobMachine, keys(func(j *v1alpha1.BackupJob) string { return j.Spec.VirtualMachineRef.Name })},
		{&v1alpha1.BackupJob{}, jobPolicy, keys(func(j *v1alpha1.BackupJob) string { return j.Labels[v1alpha1.LabelPolicyUID] })},
		{&v1alpha1.BackupJob{}, jobRepository, keys(func(j *v1alpha1.BackupJob) string { return j.Spec.RepositoryRef.Name })},
		{&v1alpha1.RestoreJob{}, restoreImage, keys(imageOf)},
		{&v1alpha1.BackupPolicy{}, policyRepository, keys(func(p *v1alpha1.BackupPolicy) string { return p.Spec.RepositoryRef.Name })},
		{&v1alpha1.VirtualMachine{}, machineID, keys(func(m *v1alpha1.VirtualMachine) string { return m.Labels[v1alpha1.LabelVirtualMachineID] })},
		{&v1alpha1.VirtualMachine{}, machineHost, keys(func(m *v1alpha1.VirtualMachine) string { return m.Status.HostName })},
		{&v1alpha1.HostInventory{}, inventoryMachine, machinesOf},
	}
	for _, i := range indexes {
		if err := indexer.IndexField(ctx, i.object, i.name, i.keys); err != nil {
			return fmt.Errorf("index %T by %s: %w", i.object, i.name, err)
		}
	}
	return nil
}

// keys turns a function that returns one key, or an empty one for none, into what the cache calls.
func keys[T client.Object](key func(T) string) client.IndexerFunc {
	return func(object client.Object) []string {
		if k := key(object.(T)); k != "" {
			return []string{k}
		}
		return nil
	}
}

func seriesOf(image *v1alpha1.BackupImage) string {
	return series(image.Spec.VirtualMachine.ID, image.Spec.PolicyName, image.Spec.RepositoryRef.Name)
}

func imageOf(restore *v1alpha1.RestoreJob) string {
	switch {
	case restore.Status.ImageRef != nil:
		return restore.Status.ImageRef.Name
	case restore.Spec.Source.ImageRef != nil:
		return restore.Spec.Source.ImageRef.Name
	default:
		return restore.Spec.Source.ImageID
	}
}

func machinesOf(object client.Object) []string {
	machines := object.(*v1alpha1.HostInventory).Status.VirtualMachines
	ids := make([]string, 0, len(machines))
	for _, machine := range machines {
		ids = append(ids, machine.ID)
	}
	return ids
}
