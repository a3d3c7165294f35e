// Only compiles and uses the generated Java code. These tests have no Java gRPC client.
import backendsignal.v1.Address;
import backendsignal.v1.Message;
import backendsignal.v1.Ready;
import backendsignal.v1.WatchDevicesRequest;

class Main {
    public static void main(String[] arguments) {
        var message = Message.newBuilder().setSender(Address.newBuilder().setUser("bob").setDevice("phone")).build();
        var ready = Ready.newBuilder().setAddress(message.getSender()).build();
        var watch = WatchDevicesRequest.newBuilder().addUsers(ready.getAddress().getUser()).build();
        if (!watch.getUsers(0).equals("bob")) throw new AssertionError(watch);
    }
}
