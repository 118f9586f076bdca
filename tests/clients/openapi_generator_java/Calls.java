import java.util.List;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.JSON;
import org.openapitools.client.api.EncryptionApi;
import org.openapitools.client.api.KeysApi;
import org.openapitools.client.api.SigningApi;
import org.openapitools.client.model.ApiError;
import org.openapitools.client.model.CreateKeyRequest;
import org.openapitools.client.model.CreateKeyResult;
import org.openapitools.client.model.DecryptRequest;
import org.openapitools.client.model.EncryptRequest;
import org.openapitools.client.model.EncryptResult;
import org.openapitools.client.model.SignRequest;
import org.openapitools.client.model.SignResult;
import org.openapitools.client.model.VerifyRequest;

/** Uses the client that openapi-generator makes for Java: the argument is the URL. */
public class Calls {
    private static final String DATA = "SGVsbG8gdG9rZW4h";

    public static void main(String[] arguments) throws ApiException {
        ApiClient client = new ApiClient().setBasePath(arguments[0]);
        KeysApi keys = new KeysApi(client);
        SigningApi signing = new SigningApi(client);
        EncryptionApi encryption = new EncryptionApi(client);

        CreateKeyResult pair = keys.createKey(
                new CreateKeyRequest().kty("EC").crv("P-256").alg("ES256"), null, null);
        SignResult signed = signing.sign(
                new SignRequest().kid(pair.getKid()).alg(pair.getAlg()).data(DATA), null);
        boolean isValid = signing.verify(
                new VerifyRequest()._protected(signed.getProtected()).data(DATA).signature(signed.getSignature()),
                null).getValid();

        CreateKeyResult secret = keys.createKey(
                new CreateKeyRequest().kty("oct").alg("A256GCM"), null, null);
        EncryptResult encrypted = encryption.encrypt(
                new EncryptRequest().kid(secret.getKid()).alg("dir").enc(secret.getAlg()).data(DATA), null);
        String decrypted = encryption.decrypt(
                new DecryptRequest()
                        ._protected(encrypted.getProtected())
                        .encryptedKey(encrypted.getEncryptedKey())
                        .iv(encrypted.getIv())
                        .ciphertext(encrypted.getCiphertext())
                        .tag(encrypted.getTag()),
                null).getData();

        for (String kid : List.of(pair.getKid(), secret.getKid())) {
            keys.destroyKey(kid, null);
        }
        try {
            keys.getKey(pair.getKid(), null);
        } catch (ApiException refusal) {
            ApiError gone = JSON.deserialize(refusal.getResponseBody(), ApiError.class);
            if (isValid && decrypted.equals(DATA) && gone.getError().equals("not_found")) {
                System.out.println("all is well");
            }
        }
    }
}
